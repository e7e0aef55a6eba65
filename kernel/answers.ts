/** Answers to what front ends ask about code that does not run: completion, inspection, whether a cell is complete. */
import { toCodePoints, toUtf16 } from './codePoints';
import type { MimeBundle } from '../src/inspect/kernelApi';
import type { LanguageService } from './languageService';
import { questionIn } from './question';

/** Candidates whose kind is told beside them; more would only make the message long. */
const TYPED = 300;

type Content = Readonly<Record<string, unknown>>;

const joined = (parts: readonly { readonly text: string }[] | undefined): string => (parts ?? []).map((p) => p.text).join('');

/** Signature and documentation of what stands at a place of some code. */
export function inspection(language: LanguageService, source: string, position: number): MimeBundle | undefined {
  const info = language.inspect(source, position);
  if (!info) return undefined;
  const signature = joined(info.displayParts);
  // Of names that it does not know the compiler says `any`, which tells nothing.
  if (signature === 'any') return undefined;
  const rest = [joined(info.documentation), ...(info.tags ?? []).map((t) => `@${t.name} ${joined(t.text)}`)].filter(Boolean);
  return { 'text/plain': [signature, ...rest].join('\n\n'), 'text/markdown': [`\`\`\`typescript\n${signature}\n\`\`\``, ...rest].join('\n\n') };
}

/** Reply contents by request type. */
export const ANSWERS: Readonly<Record<string, (language: LanguageService, content: Content) => object>> = {
  is_complete_request: (language, { code }) => (questionIn(String(code)) ? { status: 'complete' } : language.isComplete(String(code))),

  complete_request(language, { code, cursor_pos }) {
    const source = String(code);
    const { start, end, candidates, original } = language.complete(source, toUtf16(source, Number(cursor_pos)));
    const from = toCodePoints(source, start);
    const to = toCodePoints(source, end);
    const kinds = new Map((original?.entries ?? []).map((e) => [e.name, e.kind]));
    const types = candidates.slice(0, TYPED).map((text) => ({ start: from, end: to, text, type: kinds.get(text) ?? '' }));
    return { status: 'ok', matches: candidates, cursor_start: from, cursor_end: to, metadata: { _jupyter_types_experimental: types } };
  },

  inspect_request(language, { code, cursor_pos }) {
    const source = String(code);
    const data = inspection(language, source, toUtf16(source, Number(cursor_pos)));
    return { status: 'ok', found: data !== undefined, data: data ?? {}, metadata: {} };
  },
};
