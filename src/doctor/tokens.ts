/** How tokens are checked: keys that can be guessed, claims that nobody looks at, keys that can't be fetched. */

import { createPublicKey } from 'node:crypto';
import type { AuthConfig, Config } from '../config.js';
import { messageOf } from '../errors.js';
import { fail, ok, several, warn } from './check.js';
import type { Check } from './check.js';

/** RFC 7518, 3.2: as long as the hash; and no fewer different bytes than a random key of that length ever has. */
const secretBytes: Readonly<Record<string, number>> = { HS256: 32, HS384: 48, HS512: 64 };
const leastBytes = 32;
const distinctBytes = 10;
const wellKnown = /secret|change.?me|password|example|your[-_ ]|123456/i;
/** NIST SP 800-131A. */
const rsaBits = 2048;

const jwksTimeoutMs = 5_000;

export async function checkTokens(config: Config): Promise<Check[]> {
  const { auth } = config;
  const checks = [keyCheck(auth), claims(auth, config.warnings)];
  if (auth.queryToken) {
    checks.push(
      warn(
        'query_tokens',
        'auth.queryToken is on',
        'Tokens in the URL end up in the logs of proxies: turn it off once no client needs it.',
      ),
    );
  }
  if (auth.key.kind === 'jwks') checks.push(await jwks(auth.key.uri));
  return checks;
}

function keyCheck({ key, algorithms }: AuthConfig): Check {
  if (key.kind === 'secret') return secret(key.secret, algorithms);
  if (key.kind === 'jwks') {
    const { protocol, hostname } = new URL(key.uri);
    const isLocal = ['localhost', '127.0.0.1', '[::1]'].includes(hostname);
    if (protocol === 'https:' || isLocal) return ok('token_key', 'tokens are checked with the keys of auth.jwksUri');
    return fail(
      'token_key',
      'auth.jwksUri is not https',
      'Whoever is on the way can put keys of their own: use https.',
    );
  }
  const { asymmetricKeyType, asymmetricKeyDetails } = createPublicKey(key.pem);
  const bits = asymmetricKeyDetails?.modulusLength;
  if (asymmetricKeyType === 'rsa' && bits !== undefined && bits < rsaBits) {
    return fail(
      'token_key',
      `the RSA key has ${String(bits)} bits`,
      `Use one of ${String(rsaBits)} bits or more, or an EC key.`,
    );
  }
  return ok('token_key', `tokens are checked with the ${asymmetricKeyType ?? ''} key ${key.file}`);
}

function secret(value: string, algorithms: AuthConfig['algorithms']): Check {
  const bytes = Buffer.from(value);
  const needed = Math.max(...algorithms.map((algorithm) => secretBytes[algorithm] ?? 0));
  const cure = 'Make one with: openssl rand -hex 32 (64 for HS512), and give it to the application too.';
  if (bytes.length < leastBytes) {
    return fail('token_key', `auth.secret has ${String(bytes.length)} bytes and can be guessed`, cure);
  }
  if (new Set(bytes).size < distinctBytes)
    return fail('token_key', 'auth.secret repeats itself and can be guessed', cure);
  if (bytes.length < needed)
    return warn(
      'token_key',
      `auth.secret has ${String(bytes.length)} bytes; ${String(needed)} fit ${algorithms.join(', ')}`,
      cure,
    );
  if (wellKnown.test(value)) return warn('token_key', 'auth.secret looks like an example from a manual', cure);
  return ok('token_key', `auth.secret has ${String(bytes.length)} bytes`);
}

function claims({ issuer, audience }: AuthConfig, warnings: readonly string[]): Check {
  const open = warnings.filter((warning) => /^auth\.(?:issuer|audience) /.test(warning));
  if (open.length > 0) {
    return warn(
      'token_claims',
      several(open),
      'A token that was made for something else would be taken: set them, or write null where that is meant.',
    );
  }
  const checked = [...(issuer === null ? [] : ['iss']), ...(audience === null ? [] : ['aud']), 'exp'];
  return ok('token_claims', `tokens must have the right ${checked.join(', ')}`);
}

async function jwks(uri: string): Promise<Check> {
  const cure = 'No token can be checked without keys: correct auth.jwksUri, or let this machine reach it.';
  try {
    const answer = await fetch(uri, { signal: AbortSignal.timeout(jwksTimeoutMs) });
    if (!answer.ok) return fail('jwks', `${uri} answers with status ${String(answer.status)}`, cure);
    const body = (await answer.json()) as { keys?: unknown };
    const keys = Array.isArray(body.keys) ? body.keys.length : 0;
    if (keys === 0) return fail('jwks', `${uri} holds no keys`, cure);
    return ok('jwks', `${uri} gives ${String(keys)} keys`);
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    return fail('jwks', `${uri} can't be reached: ${messageOf(cause) || messageOf(error)}`, cure);
  }
}
