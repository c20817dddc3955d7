/**
 * Publications on their way between processes: JSON, in pieces that every broker carries. What a later version adds is optional, for a
 * process of the version before leaves it out.
 */

import type { Publication } from './broker.js';

/** The one channel (Redis) or subject (NATS) that all processes of an installation share. */
export const brokerSubject = 'belfry.publications';

/** NATS carries 1 MB a message unless told otherwise. */
const maxBytes = 512 * 1024;

/** What a process says that could not publish for a while: the others have missed what it had to say. */
export const backAgain: readonly Publication[] = [{ to: 'control', kind: 'leader', term: null }];

/** Messages that together hold the publications, in order; `origin` tells a process what came from itself. */
export function* encode(origin: string, publications: readonly Publication[]): Generator<string> {
  const head = `{"origin":${JSON.stringify(origin)},"publications":[`;
  let text = '';
  for (const publication of publications) {
    const one = JSON.stringify(publication);
    if (text !== '' && Buffer.byteLength(text) + Buffer.byteLength(one) > maxBytes) {
      yield `${head}${text}]}`;
      text = '';
    }
    text += (text === '' ? '' : ',') + one;
  }
  if (text !== '') yield `${head}${text}]}`;
}

/** Null for what is not a message of Belfry's, or came from this process. */
export function decode(origin: string, message: string): readonly Publication[] | null {
  let parsed: unknown;
  try {
    parsed = JSON.parse(message);
  } catch {
    return null;
  }
  if (typeof parsed !== 'object' || parsed === null || !('origin' in parsed) || !('publications' in parsed))
    return null;
  if (parsed.origin === origin || !Array.isArray(parsed.publications)) return null;
  return parsed.publications as Publication[];
}
