/** The text of what the gateway itself sends: answers, errors, channel events. Personal pushes come ready from the relay. */

import type { ChannelPublication, CounterPublication } from '../broker/broker.js';
import { errorCodes, type ErrorCode } from '../protocol/codes.js';
import type { AuthOk, PersonalPush, RequestId } from '../protocol/frames.js';
import type { Blocked } from './people/people.js';

export function okFrame(id: RequestId, ok: unknown): string {
  return JSON.stringify({ id, ok });
}

export function errorFrame(id: RequestId | null, code: ErrorCode, message: string): string {
  return JSON.stringify({ id, error: { code, message, retry: errorCodes[code].retry } });
}

/** Without the detour of a copy: in a storm of handshakes it is the one frame that everybody gets. */
export function helloFrame(answer: AuthOk): string {
  return `{"event":"hello","data":${JSON.stringify(answer)}}`;
}

export function pushFrame(event: PersonalPush['event'], data: Readonly<Record<string, unknown>>): string {
  return JSON.stringify({ event, data });
}

/**
 * A logged event for somebody with these block relations. Where nothing may be seen of it, a `hidden` event stands in its
 * place, so that offsets stay dense and nobody takes it for a loss.
 */
export function frameFor(publication: ChannelPublication, blocks: Blocked | null): string {
  const { channel, event, offset, actorId, data } = publication;
  if (actorId !== null && blocks?.has(actorId) === true) return withoutActor(publication);
  return JSON.stringify({ event, channel, offset, data });
}

export function withoutActor({ channel, event, offset, dataWithoutActor: data }: ChannelPublication): string {
  return data === null ? hiddenFrame(channel, offset) : JSON.stringify({ event, channel, offset, data });
}

function hiddenFrame(channel: string, offset: number): string {
  return JSON.stringify({ event: 'hidden', channel, offset, data: {} });
}

/** A counter update; `user_id` is the latest actor, left out for whoever may not see them. */
export function counterFrame({ event, channel, data, actorId }: CounterPublication, withActor: boolean): string {
  const whole = withActor && actorId !== null ? { ...data, user_id: actorId } : data;
  return JSON.stringify({ event, channel, data: whole });
}
