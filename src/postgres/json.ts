/** JSON as Postgres writes it. */

/** A text, which may hold digits, or a number. The first alternative has no repetition inside of one, so that long texts take no stack. */
const textOrNumber = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[\d.eE+-]*/g;

/** What the text says, numbers beyond 2^53 as texts: JavaScript would tell others. Throws SyntaxError. */
export function parseJson(text: string): unknown {
  return JSON.parse(/\d{16}/.test(text) ? text.replace(textOrNumber, exact) : text) as unknown;
}

function exact(token: string): string {
  return token.startsWith('"') || Math.abs(Number(token)) <= Number.MAX_SAFE_INTEGER ? token : `"${token}"`;
}
