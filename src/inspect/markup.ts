/**
 * Plotly takes text for markup: `<b>`, `<br>`, `<a href="…">` and entities. Text that comes from data, files or options is escaped by `asText`, so that it is shown as it is written; the static picture
 * has no markup, and shows what `withoutMarkup` leaves.
 */

/** Text as Plotly markup that shows it, in titles, names, hover texts and templates alike. */
export function asText(text: string): string {
  return text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;').replace(/%\{/g, '%&#123;');
}

const TAGS = /<\/?(?:br|b|strong|i|em|u|s|sub|sup|span|a)(?:\s[^<>]*)?\/?>/gi;
const ENTITIES: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', nbsp: '\u00a0', mu: 'μ', times: '×', plusmn: '±', deg: '°' };

/** What a reader sees of Plotly markup. */
export function withoutMarkup(markup: string): string {
  return markup
    .replace(TAGS, (tag) => (/^<br/i.test(tag) ? ' ' : ''))
    .replace(/&(?:#(\d{1,7})|([a-z]+));/g, (all, code?: string, name?: string) => (code !== undefined ? (Number(code) <= 0x10ffff ? String.fromCodePoint(Number(code)) : all) : Object.hasOwn(ENTITIES, name!) ? ENTITIES[name!] : all));
}
