/**
 * Calls to the social app's own backend: an ordinary HTTP server on a port of its own, which knows nothing of Belfry. `as` is
 * who acts, for the demo has no login.
 */

export class Backend {
  #base;
  #count = 0;

  /** `port`: where the demo said that the backend listens; the host is that of this page. */
  constructor(port) {
    this.#base = `${location.protocol}//${location.hostname}:${port}`;
    this.base = this.#base;
  }

  /** A name for a request, unique to this page, so that its way can be recognised. */
  newRequestId() {
    this.#count += 1;
    return `${Math.random().toString(36).slice(2, 8)}-${this.#count}`;
  }

  feed(as) {
    return this.#call('GET', `/demo/feed?as=${as}`);
  }

  like(as, post, liked, requestId) {
    return this.#call('POST', `/demo/posts/${post}/${liked ? 'like' : 'unlike'}?as=${as}&request=${requestId}`);
  }

  comment(as, post, content, requestId) {
    return this.#call('POST', `/demo/posts/${post}/comment?as=${as}&request=${requestId}`, { content });
  }

  deleteComment(as, comment, requestId) {
    return this.#call('DELETE', `/demo/comments/${comment}?as=${as}&request=${requestId}`);
  }

  follow(as, person, follows, requestId) {
    return this.#call('POST', `/demo/users/${person}/${follows ? 'follow' : 'unfollow'}?as=${as}&request=${requestId}`);
  }

  block(as, person, blocks, requestId) {
    return this.#call('POST', `/demo/users/${person}/${blocks ? 'block' : 'unblock'}?as=${as}&request=${requestId}`);
  }

  // What the demo adds for the page, under /watch/.

  async token(person) {
    return (await this.#call('GET', `/watch/token?person=${person}`)).token;
  }

  clock() {
    return this.#call('GET', '/watch/clock');
  }

  simulate(rate) {
    return this.#call('POST', `/watch/simulator?rate=${rate}`);
  }

  leave(seconds) {
    return this.#call('POST', `/watch/away?seconds=${seconds}`);
  }

  /** Throws Error with a message for the person. */
  async #call(method, path, body) {
    const init =
      body === undefined
        ? { method }
        : { method, body: JSON.stringify(body), headers: { 'content-type': 'application/json' } };
    let response;
    try {
      response = await fetch(this.#base + path, init);
    } catch {
      throw new Error('The demo does not answer. Is it still running?');
    }
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(answer.error ?? `The demo answered ${response.status}.`);
    return answer;
  }
}
