/**
 * `sslmode=prefer` and `allow` as libpq has them (PG docs, "SSL Support"): TLS where the server has it, or only where it insists. pg itself
 * knows no second try, so the socket that it is given makes the choice.
 *
 * - prefer: asks for TLS; without it where the server has none, or where the handshake fails, or pg_hba.conf wants none (28000).
 * - allow: the other way round: TLS only where pg_hba.conf refuses a connection without.
 * - Neither checks a certificate: they guard against those who listen, not against those who answer instead.
 */

import { Socket, isIP } from 'node:net';
import { Duplex } from 'node:stream';
import { connect as connectTls } from 'node:tls';

export type Optional = 'allow' | 'prefer';

/** A client's own certificate, as PEM. */
export interface ClientCertificate {
  readonly cert?: string;
  readonly key?: string;
}

/** The message before the first one: its length, and 1234.5679 (PG docs, "Message Formats", SSLRequest). */
const sslRequest = Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);

const yes = 'S'.charCodeAt(0);
const errorResponse = 'E'.charCodeAt(0);

export class OptionalTlsSocket extends Duplex {
  readonly #certificate: ClientCertificate;
  /** What is still to be tried, in this order. */
  #order: ('tls' | 'plain')[];
  #address: { readonly port: number | string; readonly host: string | undefined } = { port: 0, host: undefined };
  /** TCP; and what goes through it, which is the same without TLS. */
  #raw = new Socket();
  #inner: Duplex | null = null;
  /** pg's first message, to be sent again. */
  #startup: Buffer | null = null;
  #answered = false;
  #keepAlive: readonly [boolean, number] | null = null;

  constructor(mode: Optional, certificate: ClientCertificate = {}) {
    super({ allowHalfOpen: false });
    this.#certificate = certificate;
    this.#order = mode === 'prefer' ? ['tls', 'plain'] : ['plain', 'tls'];
  }

  /** As Socket has it; a path instead of a port is a socket of this machine, which has no TLS. */
  connect(port: number | string, host?: string): this {
    this.#address = { port, host };
    if (typeof port === 'string' && host === undefined) this.#order = ['plain'];
    this.#attempt();
    return this;
  }

  setNoDelay(): this {
    return this;
  }

  setKeepAlive(enable = false, initialDelayMs = 0): this {
    this.#keepAlive = [enable, initialDelayMs];
    this.#raw.setKeepAlive(enable, initialDelayMs);
    return this;
  }

  ref(): this {
    this.#raw.ref();
    return this;
  }

  unref(): this {
    this.#raw.unref();
    return this;
  }

  #attempt(): void {
    const way = this.#order.shift();
    const raw = new Socket();
    this.#raw = raw;
    raw.setNoDelay(true);
    if (this.#keepAlive !== null) raw.setKeepAlive(...this.#keepAlive);
    raw.on('error', (error) => this.#raw === raw && this.destroy(error));
    raw.on('close', () => this.#raw === raw && this.#inner === null && this.destroy());
    const { port, host } = this.#address;
    const connected = (): void => (way === 'tls' ? this.#askForTls(raw) : this.#use(raw));
    if (typeof port === 'string' && host === undefined) raw.connect(port, connected);
    else raw.connect(Number(port), host ?? 'localhost', connected);
  }

  #askForTls(raw: Socket): void {
    raw.write(sslRequest);
    raw.once('data', (answer) => {
      if (answer[0] === yes) this.#handshake(raw);
      else if (this.#order.length === 0) this.destroy(new Error('The server does not support SSL connections'));
      else {
        this.#order = [];
        this.#use(raw);
      }
    });
  }

  #handshake(raw: Socket): void {
    const { host } = this.#address;
    const secure = connectTls({
      ...this.#certificate,
      socket: raw,
      rejectUnauthorized: false,
      ...(host === undefined || isIP(host) !== 0 ? {} : { servername: host }),
    });
    const failed = (error: Error): void => void (this.#order.length > 0 ? this.#again() : this.destroy(error));
    secure.once('error', failed);
    secure.once('secureConnect', () => {
      secure.off('error', failed);
      this.#use(secure);
    });
  }

  #use(inner: Duplex): void {
    this.#inner = inner;
    const current = (): boolean => this.#inner === inner;
    inner.on('data', (chunk: Buffer) => {
      if (current()) this.#receive(chunk);
    });
    inner.on('end', () => current() && this.push(null));
    inner.on('error', (error) => current() && this.destroy(error));
    inner.on('close', () => current() && this.destroy());
    if (this.#startup === null) this.emit('connect');
    else inner.write(this.#startup);
  }

  #receive(chunk: Buffer): void {
    const first = !this.#answered;
    if (first && this.#order.length > 0 && isRefusal(chunk)) {
      this.#again();
      return;
    }
    this.#answered = true;
    if (!this.push(chunk)) this.#inner?.pause();
  }

  #again(): void {
    const raw = this.#raw;
    this.#inner = null;
    this.#attempt();
    raw.destroy();
  }

  override _read(): void {
    this.#inner?.resume();
  }

  override _write(chunk: Buffer, encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#startup ??= Buffer.from(chunk);
    this.#inner?.write(chunk, encoding, done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#inner?.end(() => done());
    if (this.#inner === null) done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#inner?.destroy();
    this.#raw.destroy();
    done(error);
  }
}

/** The whole of an ErrorResponse with SQLSTATE 28000: no line of pg_hba.conf for such a connection. */
function isRefusal(chunk: Buffer): boolean {
  return chunk[0] === errorResponse && chunk.toString('latin1').includes('\0C28000\0');
}
