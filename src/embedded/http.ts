/** The little that the demo's two HTTP handlers share: JSON in and out, refusals, and which pages may call. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { messageOf } from '../errors.js';

/** An answer that is not 200; the message is for the person who asked. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** The longest body that is read; a comment has at most 280 letters. */
const maxBodyBytes = 4096;

/**
 * Answers preflights and refuses foreign origins and host names; false means that the response has ended. A request without an Origin comes
 * from no page (curl) and may pass.
 */
export function allowOrigin(request: IncomingMessage, response: ServerResponse, origins: readonly string[]): boolean {
  const { origin, host } = request.headers;
  response.setHeader('vary', 'origin');
  // A foreign name that was made to resolve to this machine (DNS rebinding) would count as the same origin.
  if (!/^(localhost|127\.0\.0\.1)(:\d+)?$/.test(host ?? '')) {
    sendJson(response, 403, { error: 'Call the demo as localhost.' });
    return false;
  }
  if (origin !== undefined) {
    if (!origins.includes(origin)) {
      sendJson(response, 403, { error: 'This origin may not call the demo.' });
      return false;
    }
    response.setHeader('access-control-allow-origin', origin);
  }
  if (request.method !== 'OPTIONS') return true;
  response.setHeader('access-control-allow-methods', 'GET, POST, DELETE');
  response.setHeader('access-control-allow-headers', 'content-type');
  response.setHeader('access-control-max-age', '600');
  response.writeHead(204).end();
  return false;
}

/** The body as a JSON object. Throws Refusal 400, 413 or 415. */
export async function readJson(request: IncomingMessage): Promise<Readonly<Record<string, unknown>>> {
  if (!/^application\/json\b/.test(request.headers['content-type'] ?? ''))
    throw new Refusal(415, 'Send application/json.');
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > maxBodyBytes) throw new Refusal(413, `At most ${maxBodyBytes} bytes.`);
    chunks.push(chunk);
  }
  try {
    const value: unknown = JSON.parse(Buffer.concat(chunks).toString('utf8'));
    if (typeof value === 'object' && value !== null && !Array.isArray(value))
      return value as Readonly<Record<string, unknown>>;
  } catch {
    // Told below.
  }
  throw new Refusal(400, 'The body is not a JSON object.');
}

export function sendJson(response: ServerResponse, status: number, body: object): void {
  if (response.headersSent) return;
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-store' });
  response.end(JSON.stringify(body));
}

/** A Refusal as it says; anything else is a 500 with its message, which is fine for a demo on one's own machine. */
export function sendRefusal(response: ServerResponse, error: unknown): void {
  // What was not read of a refused body must not be taken for the next request.
  response.setHeader('connection', 'close');
  sendJson(response, error instanceof Refusal ? error.status : 500, { error: messageOf(error) });
}
