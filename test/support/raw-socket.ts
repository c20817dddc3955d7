/**
 * A WebSocket without a WebSocket library: bytes as a test wants them, for what a well-behaved client never sends.
 * It masks, frames and fragments as told, and understands what a server may send.
 */
import { createHash, randomBytes } from 'node:crypto';
import net from 'node:net';

export const opcodes = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

export interface RawFrame {
  /** The default ends the message. */
  readonly fin?: boolean;
  /** Three bits. */
  readonly reserved?: number;
  readonly opcode: number;
  readonly payload?: Buffer | string;
  /** Clients must mask. */
  readonly masked?: boolean;
  /** How the length is written: by default as short as can be. 7 bits, 16 bits or 64 bits. */
  readonly lengthBits?: 7 | 16 | 64;
  /** A lie about the length. */
  readonly claimed?: bigint;
}

/** RFC 6455 §5.2. */
export function encode({ fin = true, reserved = 0, opcode, masked = true, ...rest }: RawFrame): Buffer {
  const payload = Buffer.from(rest.payload ?? '');
  const length = rest.claimed ?? BigInt(payload.length);
  const bits = rest.lengthBits ?? (length < 126n ? 7 : length < 65_536n ? 16 : 64);
  const head = Buffer.alloc(bits === 7 ? 2 : bits === 16 ? 4 : 10);
  head[0] = (fin ? 0x80 : 0) | (reserved << 4) | opcode;
  head[1] = (masked ? 0x80 : 0) | (bits === 7 ? Number(length) : bits === 16 ? 126 : 127);
  if (bits === 16) head.writeUInt16BE(Number(length), 2);
  if (bits === 64) head.writeBigUInt64BE(length, 2);
  if (!masked) return Buffer.concat([head, payload]);
  const mask = randomBytes(4);
  return Buffer.concat([head, mask, payload.map((byte, i) => byte ^ (mask[i % 4] ?? 0))]);
}

export const text = (payload: Buffer | string, more: Partial<RawFrame> = {}): Buffer =>
  encode({ opcode: opcodes.text, payload, ...more });

export interface Received {
  readonly opcode: number;
  readonly payload: Buffer;
}

export class RawSocket {
  /** What came and was not taken. */
  readonly received: Received[] = [];
  /** The answer to the handshake, its lines. */
  head = '';
  ended = false;
  #bytes = Buffer.alloc(0);
  #wake: (() => void)[] = [];

  private constructor(readonly socket: net.Socket) {
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
      this.parse();
      this.wake();
    });
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.ended = true;
      this.wake();
    });
  }

  /** Opens `/ws`; throws unless the server accepts, and does so as RFC 6455 §4.2.2 says. */
  static async open(port: number, headers: Readonly<Record<string, string>> = {}): Promise<RawSocket> {
    const raw = new RawSocket(net.connect({ port, host: '127.0.0.1' }));
    const key = randomBytes(16).toString('base64');
    const all = {
      ...{ Host: 'x', Upgrade: 'websocket', Connection: 'Upgrade', 'Sec-WebSocket-Version': '13' },
      ...{ 'Sec-WebSocket-Key': key, ...headers },
    };
    const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
    raw.write(Buffer.from(`GET /ws HTTP/1.1\r\n${lines.join('')}\r\n`));
    await raw.until(() => raw.head !== '' || raw.ended);
    const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
    if (!raw.head.startsWith('HTTP/1.1 101') || !raw.head.includes(`Sec-WebSocket-Accept: ${accept}`)) {
      throw new Error(`not accepted: ${raw.head}`);
    }
    return raw;
  }

  write(...chunks: readonly Buffer[]): void {
    this.socket.write(Buffer.concat(chunks));
  }

  /** The next frame, taken out; null when the connection has ended. */
  async next(): Promise<Received | null> {
    await this.until(() => this.received.length > 0 || this.ended);
    return this.received.shift() ?? null;
  }

  /** The next frame that is a text, as JSON; throws at the end of the connection. */
  async json(): Promise<Record<string, unknown>> {
    for (;;) {
      const frame = await this.next();
      if (frame === null) throw new Error('the connection has ended');
      if (frame.opcode === opcodes.close) throw new Error(`closed with ${closeCode(frame)}`);
      if (frame.opcode === opcodes.text) return JSON.parse(frame.payload.toString()) as Record<string, unknown>;
    }
  }

  /** Reads to the end of the connection: the code of the close frame, 1005 where it had none, 1006 where there was no frame. */
  async closed(): Promise<{ code: number; before: Received[] }> {
    const before: Received[] = [];
    let code = 1006;
    for (let frame = await this.next(); frame !== null; frame = await this.next()) {
      if (frame.opcode === opcodes.close) code = closeCode(frame);
      else before.push(frame);
    }
    return { code, before };
  }

  end(): void {
    this.socket.destroy();
  }

  private async until(fits: () => boolean, timeoutMs = 30_000): Promise<void> {
    const timeout = setTimeout(() => this.socket.destroy(new Error('nothing came')), timeoutMs);
    while (!fits()) await new Promise<void>((resolve) => this.#wake.push(resolve));
    clearTimeout(timeout);
  }

  private wake(): void {
    for (const resolve of this.#wake.splice(0)) resolve();
  }

  private parse(): void {
    if (this.head === '') {
      const end = this.#bytes.indexOf('\r\n\r\n');
      if (end < 0) return;
      this.head = this.#bytes.subarray(0, end).toString();
      this.#bytes = this.#bytes.subarray(end + 4);
    }
    for (;;) {
      const [first, second] = this.#bytes;
      if (first === undefined || second === undefined) return;
      const headBytes = second === 126 ? 4 : second === 127 ? 10 : 2;
      if (this.#bytes.length < headBytes) return;
      const length =
        second === 126 ? this.#bytes.readUInt16BE(2) : second === 127 ? Number(this.#bytes.readBigUInt64BE(2)) : second;
      if (this.#bytes.length < headBytes + length) return;
      this.received.push({ opcode: first & 15, payload: this.#bytes.subarray(headBytes, headBytes + length) });
      this.#bytes = this.#bytes.subarray(headBytes + length);
    }
  }
}

function closeCode({ payload }: Received): number {
  return payload.length < 2 ? 1005 : payload.readUInt16BE(0);
}
