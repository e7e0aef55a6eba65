/** Answers to what front ends ask about code that does not run: completion, inspection, whether a cell is complete. */
import { toCodePoints, toUtf16 } from './codePoints';
import type { LanguageService } from './languageService';

/** Candidates whose kind is told beside them; more would only make the message long. */
const TYPED = 300;

type Content = Readonly<Record<string, unknown>>;

const joined = (parts: readonly { readonly text: string }[] | undefined): string => (parts ?? []).map((p) => p.text).join('');

/** Reply contents by request type. */
export const ANSWERS: Readonly<Record<string, (language: LanguageService, content: Content) => object>> = {
  is_complete_request: (language, { code }) => language.isComplete(String(code)),

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
    const info = language.inspect(source, toUtf16(source, Number(cursor_pos)));
    if (!info) return { status: 'ok', found: false, data: {}, metadata: {} };
    const signature = joined(info.displayParts);
    const rest = [joined(info.documentation), ...(info.tags ?? []).map((t) => `@${t.name} ${joined(t.text)}`)].filter(Boolean);
    return {
      status: 'ok',
      found: true,
      metadata: {},
      data: { 'text/plain': [signature, ...rest].join('\n\n'), 'text/markdown': [`\`\`\`typescript\n${signature}\n\`\`\``, ...rest].join('\n\n') },
    };
  },
};
