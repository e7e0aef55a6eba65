/** The outcome of a notebook in a few lines: shown as a table, and readable for whoever ran the notebook from outside. */
import { escapeHtml } from './tableHtml';

/** Mime type under which a summary can be read from an executed notebook: a flat object of texts. */
const MIME = 'application/vnd.slimfit.summary+json';

/** Names and what was found, in order. */
export class Summary {
  constructor(readonly lines: Readonly<Record<string, string>>) {}

  /** What Jupyter shows. */
  [Symbol.for('Jupyter.display')](): Record<string, unknown> {
    const rows = Object.entries(this.lines);
    return {
      [MIME]: this.lines,
      'text/html': `<table><tbody>${rows.map(([k, v]) => `<tr><th style="text-align:left">${escapeHtml(k)}</th><td style="text-align:left">${escapeHtml(v)}</td></tr>`).join('')}</tbody></table>`,
      'text/plain': rows.map(([k, v]) => `${k}: ${v}`).join('\n'),
    };
  }
}
