/** Finds two entries of one name in an object of JSON. JSON.parse takes the last without a word; the safetensors format forbids them. */

/** The first name that an object of a valid JSON text holds twice, at any depth; undefined when there is none. Time and memory are of the text's length. */
export function repeatedKey(json: string): string | undefined {
  /** Names of the objects that are open; undefined for a list. */
  const open: (Set<string> | undefined)[] = [];
  for (let at = 0; at < json.length; at++) {
    const c = json[at];
    if (c === '{') open.push(new Set());
    else if (c === '[') open.push(undefined);
    else if (c === '}' || c === ']') open.pop();
    else if (c === '"') {
      const begin = at++;
      for (; json[at] !== '"'; at++) if (json[at] === '\\') at++;
      let behind = at + 1;
      while (' \t\n\r'.includes(json[behind] ?? 'x')) behind++;
      if (json[behind] !== ':') continue;
      const names = open.at(-1)!;
      const name = JSON.parse(json.slice(begin, at + 1)) as string;
      if (names.has(name)) return name;
      names.add(name);
    }
  }
  return undefined;
}
