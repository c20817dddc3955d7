/**
 * The outside world, as little of it as the client needs, in browsers, workers and Node.
 *
 * What must hold: nothing of a socket that was dropped reaches the machine any more; what the page is told by the
 * browser (`online`, `visibilitychange`, `pageshow`) reaches it where there is a page at all.
 */

import { SUBPROTOCOL } from '../protocol/frames.js';

/** The part of a WebSocket that is used; the browser's, Node's own and the one of package `ws` all have it. */
export interface WebSocketLike {
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  send(data: string): void;
  close(code?: number, reason?: string): void;
}
export type WebSocketClass = new (url: string, protocols?: string | string[]) => WebSocketLike;

export interface SocketHandler {
  open(): void;
  message(text: string): void;
  gone(code: number, reason: string): void;
}

export interface Socket {
  send(text: string): void;
  /** After this the handler hears nothing more. */
  drop(reason: string): void;
}

/** Never throws: a socket that can't even be made is gone. The handler is never called before this returns. */
export function openSocket(Class: WebSocketClass, url: string, handler: SocketHandler): Socket {
  let heard = true;
  const once = (code: number, reason: string): void => {
    if (!heard) return;
    heard = false;
    handler.gone(code, reason);
  };
  let ws: WebSocketLike | undefined;
  let problem = '';
  try {
    ws = new Class(url, [SUBPROTOCOL]);
    ws.onopen = () => heard && handler.open();
    ws.onmessage = ({ data }: { readonly data: unknown }) => heard && typeof data === 'string' && handler.message(data);
    // A close follows every error; Node's `ws` says here what went wrong, browsers don't.
    ws.onerror = ({ message }: { readonly message?: unknown }) =>
      void (problem = typeof message === 'string' ? message : '');
    ws.onclose = ({ code, reason }: { readonly code: number; readonly reason: string }) =>
      once(code, reason || problem);
  } catch (error) {
    queueMicrotask(() => once(1006, String(error)));
  }
  return {
    send: (text) => ws?.send(text),
    drop: (reason) => {
      heard = false;
      try {
        // At most 123 bytes of reason are allowed; three bytes a character at worst.
        ws?.close(1000, reason.slice(0, 40));
      } catch {
        // It is closing already, or was never open.
      }
    },
  };
}

/**
 * Calls `wake` when the network is back or the page is looked at again, `leave` when the page may be about to go.
 * Returns what ends it. Does nothing where there are no such events (Node).
 */
export function watchPage(wake: () => void, leave: () => void): () => void {
  const page = globalThis as Partial<Pick<Window, 'addEventListener' | 'removeEventListener' | 'document'>>;
  const visible = (): void => (page.document?.visibilityState === 'hidden' ? leave() : wake());
  const listeners = [
    [page, 'online', wake],
    [page, 'pageshow', wake],
    [page, 'pagehide', leave],
    [page.document, 'visibilitychange', visible],
  ] as const;
  for (const [target, event, listener] of listeners) target?.addEventListener?.(event, listener);
  return () => {
    for (const [target, event, listener] of listeners) target?.removeEventListener?.(event, listener);
  };
}
