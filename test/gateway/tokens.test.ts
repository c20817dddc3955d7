/** Tokens: every way in which one may be wrong, each kind of key, and a JWKS that is away, slow or changing. */

import { createSign, generateKeyPairSync, type KeyObject } from 'node:crypto';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import fc from 'fast-check';
import jwt from 'jsonwebtoken';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { AuthConfig } from '../../src/config.js';
import { KeySet, Tokens } from '../../src/gateway/sessions/tokens.js';

const secret = 'a-secret-that-is-long-enough-for-a-test-0123456789';
const inAnHour = Math.floor(Date.now() / 1000) + 3600;
const base: AuthConfig = {
  key: { kind: 'secret', secret },
  algorithms: ['HS256'],
  issuer: null,
  audience: null,
  userClaim: 'sub',
  queryToken: false,
  adminClaim: null,
};
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const otherRsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const pem = (key: KeyObject): string => key.export({ type: 'spki', format: 'pem' }).toString();
const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
const signed = (claims: object, options: jwt.SignOptions = {}): string =>
  jwt.sign(claims, secret, { algorithm: 'HS256', ...options });

async function refusal(tokens: Tokens, token: string): Promise<string> {
  const error: unknown = await tokens.verify(token).then(
    () => null,
    (reason: unknown) => reason,
  );
  expect(error).toMatchObject({ code: 'token_invalid' });
  const { message } = error as Error;
  for (const part of token.split('.')) if (part.length > 8) expect(message).not.toContain(part);
  return message;
}

describe('a shared secret', () => {
  const tokens = new Tokens(base);

  it('gives the user and the expiry', async () => {
    expect(await tokens.verify(signed({ sub: '42', exp: inAnHour }))).toEqual({
      userId: '42',
      expiresAt: inAnHour,
      admin: false,
    });
    expect(await tokens.verify(signed({ sub: 42, exp: inAnHour }))).toMatchObject({ userId: '42' });
    expect((await tokens.verify(signed({ sub: '42', exp: 1e15 }))).expiresAt).toBe(253_402_300_799);
  });

  it.each([
    ['expired', () => signed({ sub: '1', exp: 1000 }), /expired/],
    ['not valid yet', () => signed({ sub: '1', exp: inAnHour, nbf: inAnHour - 10 }), /not valid yet/],
    ['without exp', () => signed({ sub: '1' }), /exp is required/],
    ['with exp as text', () => `${encode({ alg: 'HS256' })}.${encode({ sub: '1', exp: String(inAnHour) })}`, /./],
    ['without the user', () => signed({ exp: inAnHour }), /claim sub/],
    ['for an empty user', () => signed({ sub: '', exp: inAnHour }), /claim sub/],
    ['for a user with control characters', () => signed({ sub: 'a\u0000b', exp: inAnHour }), /claim sub/],
    ['for a user that is an object', () => `${encode({ alg: 'none' })}.${encode({ sub: {}, exp: inAnHour })}.`, /./],
    [
      'of another algorithm with the same secret',
      () => signed({ sub: '1', exp: inAnHour }, { algorithm: 'HS512' }),
      /algorithm/,
    ],
    [
      'alg none, no signature',
      () => `${encode({ alg: 'none', typ: 'JWT' })}.${encode({ sub: '1', exp: inAnHour })}.`,
      /not signed|algorithm/,
    ],
    [
      'alg None, as others write it',
      () => `${encode({ alg: 'None' })}.${encode({ sub: '1', exp: inAnHour })}.`,
      /not signed|algorithm|token/,
    ],
    [
      'alg none with the signature of another',
      () => {
        const [, , signature] = signed({ sub: '1', exp: inAnHour }).split('.');
        return `${encode({ alg: 'none' })}.${encode({ sub: '2', exp: inAnHour })}.${signature!}`;
      },
      /./,
    ],
    [
      'changed after it was signed',
      () => {
        const [head, , signature] = signed({ sub: '1', exp: inAnHour }).split('.');
        return `${head!}.${encode({ sub: '2', exp: inAnHour })}.${signature!}`;
      },
      /signature/,
    ],
    [
      'of a key of its own',
      () => jwt.sign({ sub: '1', exp: inAnHour }, rsa.privateKey, { algorithm: 'RS256' }),
      /algorithm/,
    ],
    ['empty', () => '', /./],
    ['rubbish', () => 'a.b.c', /./],
  ])('refuses one that is %s', async (_what, make, message) => {
    expect(await refusal(tokens, make())).toMatch(message);
  });

  it('refuses anything that was not signed with it', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.string(),
          fc.tuple(fc.base64String(), fc.base64String(), fc.base64String()).map((parts) => parts.join('.')),
        ),
        async (token) => {
          await expect(tokens.verify(token)).rejects.toMatchObject({ code: 'token_invalid' });
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe('issuer, audience, claims', () => {
  it('are checked where they are configured', async () => {
    const tokens = new Tokens({ ...base, issuer: 'us', audience: ['web', 'app'] });
    expect(await tokens.verify(signed({ sub: '1', exp: inAnHour, iss: 'us', aud: 'app' }))).toMatchObject({
      userId: '1',
    });
    expect(await refusal(tokens, signed({ sub: '1', exp: inAnHour, iss: 'them', aud: 'app' }))).toMatch(/issuer/);
    expect(await refusal(tokens, signed({ sub: '1', exp: inAnHour, aud: 'app' }))).toMatch(/issuer/);
    expect(await refusal(tokens, signed({ sub: '1', exp: inAnHour, iss: 'us', aud: 'other' }))).toMatch(/audience/);
    expect(await refusal(tokens, signed({ sub: '1', exp: inAnHour, iss: 'us' }))).toMatch(/audience/);
  });

  it('take the user from the configured claim, and admins by all of theirs', async () => {
    const tokens = new Tokens({ ...base, userClaim: 'uid', adminClaim: { role: 'admin', staff: true } });
    expect(await tokens.verify(signed({ uid: 'u1', exp: inAnHour, role: 'admin', staff: true }))).toMatchObject({
      userId: 'u1',
      admin: true,
    });
    expect(
      await tokens.verify(signed({ uid: 'u1', exp: inAnHour, role: ['user', 'admin'], staff: true })),
    ).toMatchObject({ admin: true });
    expect(await tokens.verify(signed({ uid: 'u1', exp: inAnHour, role: 'admin' }))).toMatchObject({ admin: false });
    expect(await tokens.verify(signed({ uid: 'u1', exp: inAnHour, role: 'admin', staff: 'true' }))).toMatchObject({
      admin: false,
    });
  });
});

describe('a public key', () => {
  const tokens = new Tokens({
    ...base,
    key: { kind: 'publicKey', file: 'key.pem', pem: pem(rsa.publicKey) },
    algorithms: ['RS256'],
  });

  it('accepts what was signed with the private one', async () => {
    expect(
      await tokens.verify(jwt.sign({ sub: '1', exp: inAnHour }, rsa.privateKey, { algorithm: 'RS256' })),
    ).toMatchObject({ userId: '1' });
    await refusal(tokens, jwt.sign({ sub: '1', exp: inAnHour }, otherRsa.privateKey, { algorithm: 'RS256' }));
  });

  it('is never taken for a shared secret', async () => {
    const { createHmac } = await import('node:crypto');
    const head = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode({ sub: '1', exp: inAnHour })}`;
    const forged = `${head}.${createHmac('sha256', pem(rsa.publicKey)).update(head).digest('base64url')}`;
    expect(await refusal(tokens, forged)).toMatch(/algorithm/);
  });

  it('ignores keys that a token brings along', async () => {
    const head = `${encode({ alg: 'RS256', jwk: otherRsa.publicKey.export({ format: 'jwk' }) })}.${encode({ sub: '1', exp: inAnHour })}`;
    const forged = `${head}.${createSign('RSA-SHA256').update(head).sign(otherRsa.privateKey, 'base64url')}`;
    expect(await refusal(tokens, forged)).toMatch(/signature/);
  });
});

describe('a JWKS', () => {
  let served: { kid: string; key: KeyObject }[] = [];
  let status = 200;
  let requests = 0;
  let now = 0;
  let delayMs = 20;
  const server = http.createServer((_request, response) => {
    requests++;
    setTimeout(() => {
      response.statusCode = status;
      response.end(
        JSON.stringify({
          keys: served.map(({ kid, key }) => ({ ...key.export({ format: 'jwk' }), kid, use: 'sig', alg: 'RS256' })),
        }),
      );
    }, delayMs).unref();
  });
  let uri = '';
  beforeAll(async () => {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    uri = `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks`;
  });
  beforeEach(() => {
    [served, status, requests, now] = [[{ kid: 'a', key: rsa.publicKey }], 200, 0, 0];
  });
  afterAll(() => {
    server.close();
    server.closeAllConnections();
  });

  it('is fetched once for many', async () => {
    const tokens = new Tokens({ ...base, key: { kind: 'jwks', uri }, algorithms: ['RS256'] });
    const token = jwt.sign({ sub: '1', exp: inAnHour }, rsa.privateKey, { algorithm: 'RS256', keyid: 'a' });
    await Promise.all(Array.from({ length: 20 }, () => tokens.verify(token)));
    expect(requests).toBe(1);
    expect(
      await refusal(
        tokens,
        jwt.sign({ sub: '1', exp: inAnHour }, otherRsa.privateKey, { algorithm: 'RS256', keyid: 'a' }),
      ),
    ).toMatch(/signature/);
  });

  it('is not asked for a token of a foreign algorithm', async () => {
    const tokens = new Tokens({ ...base, key: { kind: 'jwks', uri }, algorithms: ['RS256'] });
    await refusal(tokens, signed({ sub: '1', exp: inAnHour }, { keyid: 'zzz' }));
    expect(requests).toBe(0);
  });

  it('is asked again for an unknown kid, but not more than once per cooldown', async () => {
    const keys = new KeySet(uri, () => now);
    await keys.find('a');
    now = 31_000;
    served.push({ kid: 'b', key: otherRsa.publicKey });
    await keys.find('b');
    expect(requests).toBe(2);
    for (let i = 0; i < 14; i++) {
      now += 2000;
      await expect(keys.find(`x${i}`)).rejects.toMatchObject({ code: 'token_invalid' });
    }
    expect(requests).toBe(2);
    now = 62_000;
    await Promise.all(
      [1, 2, 3].map((i) => expect(keys.find(`y${i}`)).rejects.toMatchObject({ code: 'token_invalid' })),
    );
    expect(requests).toBe(3);
  });

  it('forgets keys that were taken away, and keeps those it has while the issuer is away', async () => {
    const keys = new KeySet(uri, () => now);
    await keys.find('a');
    status = 500;
    now = 11 * 60_000;
    await keys.find('a');
    expect(requests).toBe(2);
    status = 200;
    served = [{ kid: 'b', key: otherRsa.publicKey }];
    now += 31_000;
    // Whoever has a new key waits for it; from then on the old one is gone.
    await keys.find('b');
    await expect(keys.find('a')).rejects.toMatchObject({ code: 'token_invalid' });
  });

  it('has keys that age out: a day after the issuer was last heard of, nothing is believed', async () => {
    const keys = new KeySet(uri, () => now);
    await keys.find('a');
    status = 500;
    now = 24 * 3_600_000;
    await keys.find('a');
    now += 31_000;
    await expect(keys.find('a')).rejects.toMatchObject({ code: 'unavailable' });
    status = 200;
    now += 31_000;
    await keys.find('a');
  });

  it('holds nobody up whose key is known, while the issuer is away', async () => {
    const keys = new KeySet(uri, () => now);
    await keys.find('a');
    status = 500;
    now = 11 * 60_000;
    await keys.find('a');
    now += 31_000;
    const before = requests;
    delayMs = 60_000;
    const began = performance.now();
    await keys.find('a');
    await expect.poll(() => requests).toBe(before + 1);
    await keys.find('a');
    // Its own limit for the issuer is 4 s.
    expect(performance.now() - began).toBeLessThan(3500);
    delayMs = 20;
  });

  it('says unavailable while it never could be fetched', async () => {
    status = 500;
    const keys = new KeySet(uri, () => now);
    await expect(keys.find('a')).rejects.toMatchObject({ code: 'unavailable', retry: true });
    status = 200;
    now = 2000;
    await keys.find('a');
  });
});
