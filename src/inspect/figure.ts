/**
 * A Plotly figure that shows itself in a notebook. The page loads plotly.js once, from the kernelspec's folder on the same Jupyter server, then from a CDN; where no script runs, the
 * static picture inside stays. Texts of a figure are Plotly's markup; those of our own figures, which come from runs and data, are escaped (`figureOfText`).
 */
import { randomUUID } from 'node:crypto';
import { asText, withoutMarkup } from './markup';
import { baseLayout, CIVIDIS, COLOURS } from './palette';
import { staticSvg, type Trace } from './staticSvg';

/** What pages load when the Jupyter server does not have plotly.js: the file of the npm package, which is run only if it has this hash (of plotly.js-dist-min 3.1.0 as the registry has it). */
const PLOTLY_CDN = { url: 'https://cdn.jsdelivr.net/npm/plotly.js-dist-min@3.1.0/plotly.min.js', integrity: 'sha384-DAxS2fhSGacPW3IdpTjDpu+KotwjM8aHsfrkZRnfYyJIhAHoDav7jAJ+NmYcp6PL' } as const;

/** Data and layout, as Plotly takes them. */
export interface FigureSpec {
  readonly data: readonly Trace[];
  /** What it leaves out reads well on light and dark pages. */
  readonly layout?: Readonly<Record<string, unknown>>;
}

/** An interactive figure. */
export class Figure {
  readonly data: readonly Trace[];
  readonly layout: Readonly<Record<string, unknown>>;

  constructor({ data, layout }: FigureSpec) {
    this.data = data.map((t) => (t.type === 'heatmap' && t.colorscale === undefined ? { ...t, colorscale: CIVIDIS } : t));
    const named = this.data.filter((t) => typeof t.name === 'string' && t.showlegend !== false);
    this.layout = completeLayout(layout ?? {}, layout?.showlegend === true || (layout?.showlegend !== false && named.length > 1));
  }

  /** Its static picture. */
  toSvg(): string {
    return staticSvg(this.data, this.layout);
  }

  /** HTML that draws itself. */
  toHtml(): string {
    const id = `slimfit-${randomUUID()}`;
    const height = Number(this.layout.height) || 360;
    const picture = `data:image/svg+xml;base64,${Buffer.from(this.toSvg()).toString('base64')}`;
    const spec = scriptJson({ data: this.data.map(plain), layout: plain(this.layout) });
    return `<div id="${id}" style="min-height:${height}px"><img alt="${this.titleText.replace(/[&"<>]/g, ' ')}" style="max-width:100%" src="${picture}"></div>
<script type="text/javascript">(function(){
var id=${scriptJson(id)},fig=${spec};
function base(){var e=document.getElementById('jupyter-config-data');try{return e?JSON.parse(e.textContent).baseUrl:null}catch(_){return null}}
function load(url,hash){return new Promise(function(ok,no){var s=document.createElement('script'),d=window.define;s.src=url;if(hash){s.crossOrigin='anonymous';s.integrity=hash}
s.onload=function(){if(d)window.define=d;window.Plotly?ok(window.Plotly):no(new Error(url))};s.onerror=function(){if(d)window.define=d;no(new Error(url))};
if(d&&d.amd)window.define=undefined;document.head.appendChild(s)})}
var urls=[],b=base();if(b)urls.push([b.replace(/\\/?$/,'/')+'kernelspecs/slimfit/plotly.min.js']);urls.push(${scriptJson([PLOTLY_CDN.url, PLOTLY_CDN.integrity])});
window.slimfitPlotly=window.slimfitPlotly||(window.Plotly?Promise.resolve(window.Plotly):urls.reduce(function(p,u){return p.catch(function(){return load(u[0],u[1])})},Promise.reject()));
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
    const title = this.layout.title as { text?: string } | string | undefined;
    return withoutMarkup(String((typeof title === 'string' ? title : title?.text) || 'untitled'));
  }
}

/** A figure whose names, texts, categories and titles are text and no markup. Hover templates are markup: what they hold of data goes through `asText`. */
export function figureOfText({ data, layout }: FigureSpec): Figure {
  const one = (v: unknown): unknown => (typeof v === 'string' ? asText(v) : Array.isArray(v) ? v.map(one) : v);
  const some = <T extends object>(o: T, keys: readonly string[]): T => ({ ...o, ...Object.fromEntries(Object.entries(o).filter(([k]) => keys.includes(k)).map(([k, v]) => [k, one(v)])) });
  const titled = (o: unknown): unknown => {
    if (!o || typeof o !== 'object') return o;
    const { title } = o as { title?: unknown };
    const escaped = some(o, ['categoryarray', 'tickvals', 'ticktext']) as Record<string, unknown>;
    return title === undefined ? escaped : { ...escaped, title: typeof title === 'string' ? asText(title) : some(title as object, ['text']) };
  };
  const axes = Object.fromEntries(Object.entries(layout ?? {}).map(([k, v]) => [k, /^[xy]axis\d*$/.test(k) ? titled(v) : v]));
  return new Figure({ data: data.map((t) => some(t, ['name', 'text', 'x', 'y'])), layout: titled(axes) as Readonly<Record<string, unknown>> });
}

/** A layout over our own: no background, mid-grey text, colours for the colour-blind. */
function completeLayout(given: Readonly<Record<string, unknown>>, legend: boolean): Record<string, unknown> {
  const base = baseLayout('', '', '', 360);
  const over = (key: string, value = given[key]) => ({ [key]: { ...(base[key] as object), ...(value as object | undefined) } });
  const title = typeof given.title === 'string' ? { text: given.title } : given.title;
  const complete: Record<string, unknown> = { colorway: Object.values(COLOURS), ...base, ...given, ...over('font'), ...over('xaxis'), ...over('yaxis'), ...over('legend'), ...over('margin'), ...over('title', title) };
  // Without a legend its room above the plot is not needed.
  const margin = complete.margin as { t: number };
  if (!legend && margin.t === (base.margin as { t: number }).t) complete.margin = { ...margin, t: 48 };
  return complete;
}

/** JSON that may stand inside a script element. */
function scriptJson(value: unknown): string {
  return JSON.stringify(value).replace(/</g, '\\u003c').replace(/\u2028/g, '\\u2028').replace(/\u2029/g, '\\u2029');
}

/** What JSON can say: typed arrays become lists (those of 32 bits with the digits that they have), big integers become numbers. */
function plain(value: unknown): unknown {
  if (typeof value === 'bigint') return Number(value);
  if (value instanceof Float32Array) return Array.from(value, (v) => (Number.isFinite(v) ? Number(v.toPrecision(8)) : null));
  if (ArrayBuffer.isView(value)) return Array.from(value as Float64Array, plain);
  if (value instanceof Date) return value.toISOString();
  if (Array.isArray(value)) return value.map(plain);
  if (value && typeof value === 'object') return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, plain(v)]));
  return value;
}
