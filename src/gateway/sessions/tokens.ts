/**
 * Tokens → who it is, until when, and whether an admin.
 *
 * What must hold: only the configured algorithms, with the one configured kind of key; a numeric `exp` is required; issuer
 * and audience are checked exactly where the config names them; nothing that a token says about keys (`jku`, `jwk`, `x5u`)
 * is ever looked at but its `kid`, and that only to choose among keys already trusted. A token is never logged and never
 * part of an error's message.
 */

import { createPublicKey, createSecretKey, type KeyObject } from 'node:crypto';
import jwt from 'jsonwebtoken';
import { JwksClient } from 'jwks-rsa';
import { BelfryError } from '../../errors.js';
import type { AuthConfig } from '../../config/types.js';

export interface Identity {
  readonly userId: string;
  /** Seconds since 1970. */
  readonly expiresAt: number;
  readonly admin: boolean;
}

/** Longest user id, in characters. */
const userIdChars = 256;
/** 9999-12-31: later times are taken for this one, as dates end somewhere. */
const latestExpiry = 253_402_300_799;

export class Tokens {
  /** The one key, or where the keys are asked for. */
  readonly #key: KeyObject | KeySet;
  readonly #options: jwt.VerifyOptions;

  constructor(private readonly config: AuthConfig) {
    this.#key = keyOf(config);
    this.#options = {
      algorithms: [...config.algorithms],
      ...(config.issuer === null ? {} : { issuer: config.issuer }),
      ...(config.audience === null ? {} : { audience: [...config.audience] as [string, ...string[]] }),
    };
  }

  /** Throws BelfryError `token_invalid` (the message may be told to whoever sent it), or `unavailable` without keys. */
  async verify(token: string): Promise<Identity> {
    if (!(this.#key instanceof KeySet)) return this.identify(token, this.#key);
    const { alg, kid } = headerOf(token);
    // Before a key is looked up, so that a token of a foreign algorithm cannot make us fetch any.
    if (!(this.config.algorithms as readonly string[]).includes(alg)) throw invalid('the algorithm is not allowed');
    return this.identify(token, await this.#key.find(kid));
  }

  /** As `verify`, at once; null where the key has to be asked for first. */
  verifyNow(token: string): Identity | null {
    return this.#key instanceof KeySet ? null : this.identify(token, this.#key);
  }

  private identify(token: string, key: KeyObject): Identity {
    let claims: jwt.JwtPayload | string;
    try {
      claims = jwt.verify(token, key, this.#options);
    } catch (error) {
      throw invalid(reasonOf(error), error);
    }
    if (typeof claims === 'string') throw invalid('it carries no claims');
    const { exp } = claims;
    if (typeof exp !== 'number' || !Number.isFinite(exp)) throw invalid('exp is required');
    return {
      userId: userIdOf(claims[this.config.userClaim], this.config.userClaim),
      expiresAt: Math.min(exp, latestExpiry),
      admin: this.isAdmin(claims),
    };
  }

  private isAdmin(claims: jwt.JwtPayload): boolean {
    const wanted = this.config.adminClaim;
    if (wanted === null) return false;
    return Object.entries(wanted).every(([name, value]) => {
      const claim: unknown = claims[name];
      return claim === value || (Array.isArray(claim) && claim.includes(value));
    });
  }
}

function keyOf({ key }: AuthConfig): KeyObject | KeySet {
  switch (key.kind) {
    case 'secret':
      return createSecretKey(Buffer.from(key.secret, 'utf8'));
    case 'publicKey':
      return createPublicKey(key.pem);
    case 'jwks':
      return new KeySet(key.uri);
  }
}

/** Keys are fetched again when they are older than this … */
const keysMaxAgeMs = 10 * 60_000;
/** … or for an unknown `kid`, but not more often than this, or strangers could make us hammer the issuer. */
const keysCooldownMs = 30_000;
const keysTimeoutMs = 4_000;
/** While the issuer is away its keys stay in use for this long: it might have taken one back. */
const keysLastMs = 24 * 3_600_000;

/** The keys of a JWKS: fetched by one request at a time, kept while fresh, and in use for longer when the issuer is away. */
export class KeySet {
  readonly #client: JwksClient;
  #keys = new Map<string, KeyObject>();
  #fetchedAtMs = -Infinity;
  #triedAtMs = -Infinity;
  /** Whether the last attempt failed. */
  #away = false;
  #fetching: Promise<void> | null = null;

  constructor(
    uri: string,
    private readonly nowMs: () => number = () => performance.now(),
  ) {
    this.#client = new JwksClient({ jwksUri: uri, cache: false, rateLimit: false, timeout: keysTimeoutMs });
  }

  /** Throws BelfryError `token_invalid` for a key that is not in the set, `unavailable` while the set cannot be had. */
  async find(kid: string | undefined): Promise<KeyObject> {
    const ageMs = this.nowMs() - this.#fetchedAtMs;
    if (ageMs > keysLastMs) this.#keys.clear();
    const refreshed = ageMs > keysMaxAgeMs || this.known(kid) === undefined ? this.refresh() : null;
    // An issuer that is away must not hold up those whose key is known.
    if (!this.#away || this.known(kid) === undefined) await refreshed;
    const key = this.known(kid);
    if (key !== undefined) return key;
    if (this.#keys.size === 0) {
      throw new BelfryError('unavailable', 'The keys for tokens could not be fetched from auth.jwksUri: try again.', {
        retry: true,
      });
    }
    throw invalid('its key is not known');
  }

  /** A token without a `kid` needs a set of one key. */
  private known(kid: string | undefined): KeyObject | undefined {
    if (kid !== undefined) return this.#keys.get(kid);
    return this.#keys.size === 1 ? this.#keys.values().next().value : undefined;
  }

  /** Never throws: keys that could not be fetched leave those of before in use. */
  private async refresh(): Promise<void> {
    if (this.#fetching === null) {
      if (this.nowMs() - this.#triedAtMs < keysCooldownMs && this.#keys.size > 0) return;
      if (this.nowMs() - this.#triedAtMs < 1000) return;
      this.#triedAtMs = this.nowMs();
      this.#fetching = this.fetch().finally(() => {
        this.#fetching = null;
      });
    }
    await this.#fetching;
  }

  private async fetch(): Promise<void> {
    try {
      const keys = await this.#client.getSigningKeys();
      this.#keys = new Map(keys.map((key) => [key.kid, createPublicKey(key.getPublicKey())]));
      this.#fetchedAtMs = this.nowMs();
      this.#away = false;
    } catch {
      this.#away = true;
      // `find` says what follows from it.
    }
  }
}

function headerOf(token: string): { alg: string; kid: string | undefined } {
  let decoded: jwt.Jwt | null;
  try {
    decoded = jwt.decode(token, { complete: true });
  } catch {
    decoded = null;
  }
  if (decoded === null) throw invalid('it is not a token');
  const kid: unknown = decoded.header.kid;
  return { alg: decoded.header.alg, kid: typeof kid === 'string' ? kid : undefined };
}

/** Control characters, and halves of surrogate pairs. */
// eslint-disable-next-line no-control-regex
const unclean = /[\u0000-\u001f\u007f]|\p{Surrogate}/u;

function userIdOf(claim: unknown, name: string): string {
  const id = typeof claim === 'number' && Number.isSafeInteger(claim) ? String(claim) : claim;
  if (typeof id !== 'string' || id === '' || id.length > userIdChars || unclean.test(id)) {
    throw invalid(`the claim ${name} must name the user`);
  }
  return id;
}

/** In our words: a library's message might repeat parts of the token. */
function reasonOf(error: unknown): string {
  if (error instanceof jwt.TokenExpiredError) return 'it has expired';
  if (error instanceof jwt.NotBeforeError) return 'it is not valid yet';
  const message = error instanceof Error ? error.message : '';
  if (message.startsWith('jwt issuer')) return 'its issuer is another one';
  if (message.startsWith('jwt audience')) return 'it is meant for another audience';
  if (message === 'invalid algorithm') return 'the algorithm is not allowed';
  if (message === 'jwt signature is required') return 'it is not signed';
  if (message === 'invalid exp value') return 'exp must be a number';
  if (message === 'jwt malformed' || message === 'invalid token') return 'it is not a token';
  return 'its signature does not match';
}

function invalid(reason: string, cause?: unknown): BelfryError {
  return new BelfryError('token_invalid', `The token was refused: ${reason}.`, cause === undefined ? {} : { cause });
}
