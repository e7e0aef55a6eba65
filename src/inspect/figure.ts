/**
 * A Plotly figure that shows itself in a notebook. The page loads plotly.js once, from the kernelspec's folder on the same Jupyter server, then from a CDN; where no script runs, the
 * static picture inside stays.
 */
import { randomUUID } from 'node:crypto';
import { staticSvg, type Trace } from './staticSvg';

/** Version of plotly.js that pages load when the Jupyter server does not have it. */
const PLOTLY_CDN = 'https://cdn.plot.ly/plotly-3.1.0.min.js';

/** Data and layout, as Plotly takes them. */
export interface FigureSpec {
  readonly data: readonly Trace[];
  readonly layout: Readonly<Record<string, unknown>>;
}

/** An interactive figure. */
export class Figure {
  readonly data: readonly Trace[];
  readonly layout: Readonly<Record<string, unknown>>;

  constructor({ data, layout }: FigureSpec) {
    this.data = data;
    this.layout = layout;
  }

  /** Its static picture. */
  toSvg(): string {
    return staticSvg(this.data, this.layout);
  }

  /** HTML that draws itself. */
  toHtml(): string {
    const id = `slimfit-${randomUUID()}`;
    const height = (this.layout.height as number | undefined) ?? 360;
    const picture = `data:image/svg+xml;base64,${Buffer.from(this.toSvg()).toString('base64')}`;
    const spec = scriptJson({ data: this.data.map(plain), layout: this.layout });
    return `<div id="${id}" style="min-height:${height}px"><img alt="${String(this.titleText).replace(/[&"<>]/g, ' ')}" style="max-width:100%" src="${picture}"></div>
<script type="text/javascript">(function(){
var id=${scriptJson(id)},fig=${spec};
function base(){var e=document.getElementById('jupyter-config-data');try{return e?JSON.parse(e.textContent).baseUrl:null}catch(_){return null}}
function load(url){return new Promise(function(ok,no){var s=document.createElement('script'),d=window.define;s.src=url;
s.onload=function(){if(d)window.define=d;window.Plotly?ok(window.Plotly):no(new Error(url))};s.onerror=function(){if(d)window.define=d;no(new Error(url))};
if(d&&d.amd)window.define=undefined;document.head.appendChild(s)})}
var urls=[],b=base();if(b)urls.push(b.replace(/\\/?$/,'/')+'kernelspecs/slimfit/plotly.min.js');urls.push(${scriptJson(PLOTLY_CDN)});
window.slimfitPlotly=window.slimfitPlotly||(window.Plotly?Promise.resolve(window.Plotly):urls.reduce(function(p,u){return p.catch(function(){return load(u)})},Promise.reject()));
window.slimfitPlotly.then(function(P){var el=document.getElementById(id);if(!el)return;el.replaceChildren();
return P.newPlot(el,fig.data,fig.layout,{responsive:true,displaylogo:false}).then(function(){
if(window.ResizeObserver)new ResizeObserver(function(){if(el.isConnected&&el.clientWidth)P.Plots.resize(el)}).observe(el)})}).catch(function(){});
})();</script>`;
  }

  /** What Jupyter shows. */
  [Symbol.for('Jupyter.display')](): Record<string, unknown> {
    return { 'text/html': this.toHtml(), 'image/svg+xml': this.toSvg(), 'text/plain': `Figure: ${this.titleText}` };
  }

  private get titleText(): string {
    return (this.layout.title as { text?: string } | undefined)?.text ?? 'untitled';
  }
}

/** JSON that may stand inside a script element. */
function scriptJson(value: unknown): string {
  return JSON.stringify(value).replace(/</g, '\\u003c').replace(/\u2028/g, '\\u2028').replace(/\u2029/g, '\\u2029');
}

/** Typed arrays become lists; JSON knows no others. */
function plain(value: unknown): unknown {
  if (ArrayBuffer.isView(value)) return Array.from(value as Float64Array, (v) => (Number.isFinite(v) ? v : null));
  if (Array.isArray(value)) return value.map(plain);
  if (value && typeof value === 'object') return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, plain(v)]));
  return value;
}
