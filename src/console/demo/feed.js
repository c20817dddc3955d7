/**
 * One person's feed: posts with like, comment, follow and block. A click changes its own button at once and goes to the
 * backend; numbers and other people's comments come from Belfry alone.
 */
import { avatar } from './avatar.js';
import { h, icon, replay, setText } from './dom.js';

const commentLimit = 280;
const shownComments = 3;
const reloadAfterMs = 200;

export class Feed {
  #views = new Map();
  #feed = { posts: [], people: [] };
  #timer = null;

  /** `clicked(requestId, what)` is told of each click before it is sent; `names`: id to name of everybody. */
  constructor({ person, cast, names, backend, clicked, complain }) {
    this.person = person;
    this.cast = cast;
    this.names = names;
    this.backend = backend;
    this.clicked = clicked;
    this.complain = complain;
    this.element = h('div', { class: 'feed', tabindex: '0', role: 'group', 'aria-label': `${person.name}’s feed` });
  }

  /** From the backend; resolves with the ids of the posts. */
  async load() {
    this.#feed = await this.backend.feed(this.person.id);
    this.#draw();
    return this.#feed.posts.map(({ id }) => id);
  }

  /** Soon, and once for many calls. */
  loadSoon() {
    if (this.#timer !== null) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.load().catch(this.complain);
    }, reloadAfterMs);
  }

  /** A push of a post's channel: absolute counts, and perhaps the new comment. */
  counted(postId, counts, comment) {
    const view = this.#views.get(postId);
    if (view === undefined) return;
    const { post } = view;
    const fewer = counts.comments_count < post.comments_count;
    post.likes_count = counts.likes_count ?? post.likes_count;
    post.comments_count = counts.comments_count ?? post.comments_count;
    tick(view.likes, post.likes_count);
    tick(view.comments, post.comments_count);
    setText(view.commentsWord, wordFor(post.comments_count));
    if (comment?.id !== undefined) this.#addComment(view, comment);
    else if (fewer) this.loadSoon();
  }

  #draw() {
    // Drawn anew, so drafts and focus must be carried over.
    const drafts = new Map([...this.#views].map(([id, view]) => [id, view.input.value]));
    const focused = this.element.contains(document.activeElement) ? document.activeElement.id : '';
    this.#views.clear();
    this.element.replaceChildren(...this.#feed.posts.map((post) => this.#post(post, drafts.get(post.id) ?? '')));
    if (focused !== '') document.getElementById(focused)?.focus({ preventScroll: true });
  }

  #post(post, draft) {
    const key = `${this.person.id}-${post.id}`;
    const input = h('input', {
      id: `say-${key}`,
      class: 'say',
      type: 'text',
      name: 'comment',
      maxlength: commentLimit,
      placeholder: 'Write a comment',
      autocomplete: 'off',
      'aria-label': `Comment on ${post.name}’s post as ${this.person.name}`,
    });
    input.value = draft;
    const view = {
      post,
      input,
      likes: h('span', { class: 'count' }, String(post.likes_count)),
      comments: h('span', { class: 'count' }, String(post.comments_count)),
      commentsWord: h('span', { class: 'word' }, wordFor(post.comments_count)),
      commentList: h('ul', { class: 'comments' }),
    };
    this.#views.set(post.id, view);
    this.#drawComments(view);
    const like = h(
      'button',
      {
        type: 'button',
        class: 'act like',
        id: `like-${key}`,
        'aria-pressed': String(post.liked),
        onclick: () => this.#like(post, like),
      },
      icon('heart'),
      view.likes,
      h('span', { class: 'word' }, post.liked ? 'Liked' : 'Like'),
    );
    return h(
      'article',
      { class: 'post', 'data-author': post.name.toLowerCase(), 'data-post': post.id },
      h('header', {}, avatar(this.cast, post.user_id, post.name), h('h3', {}, post.name), ...this.#relations(post)),
      h('p', { class: 'body' }, post.body),
      h(
        'div',
        { class: 'acts' },
        like,
        h('span', { class: 'act still' }, icon('comment'), view.comments, view.commentsWord),
      ),
      view.commentList,
      h(
        'form',
        { class: 'reply', onsubmit: (event) => this.#comment(event, view) },
        input,
        h('button', { type: 'submit', class: 'send', id: `send-${key}` }, 'Send'),
      ),
    );
  }

  /** Follow and block, beside the author's name. */
  #relations(post) {
    const other = this.#feed.people.find(({ id }) => id === post.user_id);
    if (other === undefined) return [h('span', { class: 'you' }, 'you')];
    const button = (kind, word, pressed) =>
      h(
        'button',
        {
          type: 'button',
          class: `link ${kind}`,
          id: `${kind}-${this.person.id}-${other.id}`,
          'aria-pressed': String(pressed),
          'aria-label': `${word} ${other.name}`,
          onclick: () => this.#relate(kind, other, !pressed),
        },
        word,
      );
    return [
      button('follow', other.following ? 'Following' : 'Follow', other.following),
      button('block', other.blocked ? 'Blocked' : 'Block', other.blocked),
    ];
  }

  #addComment(view, comment) {
    const { post } = view;
    const id = String(comment.id);
    if (post.comments.some((other) => String(other.id) === id)) return;
    post.comments.push({ ...comment, id });
    this.#drawComments(view);
  }

  #drawComments({ post, commentList }) {
    post.comments = post.comments.slice(-shownComments);
    commentList.replaceChildren(...post.comments.map((comment) => this.#commentRow(post, comment)));
  }

  #commentRow(post, { id, user_id, name, content }) {
    const own = String(user_id) === this.person.id;
    const author = own ? 'You' : (name ?? this.names.get(String(user_id)) ?? 'Someone');
    const remove = {
      type: 'button',
      class: 'quiet-icon',
      'aria-label': 'Delete this comment',
      onclick: () => this.#deleteComment(post, id),
    };
    return h(
      'li',
      { 'data-comment': id },
      h('span', {}, h('b', {}, author), ` ${content}`),
      own ? h('button', remove, icon('close')) : null,
    );
  }

  // Clicks.

  #like(post, button) {
    post.liked = !post.liked;
    button.setAttribute('aria-pressed', String(post.liked));
    setText(button.querySelector('.word'), post.liked ? 'Liked' : 'Like');
    void this.#act(post.name, (request) => this.backend.like(this.person.id, post.id, post.liked, request));
  }

  #relate(kind, other, on) {
    if (kind === 'follow') other.following = on;
    else other.blocked = on;
    this.#draw();
    void this.#act(other.name, (request) => this.backend[kind](this.person.id, other.id, on, request));
  }

  #comment(event, view) {
    event.preventDefault();
    const content = view.input.value.trim();
    if (content === '') {
      view.input.focus();
      return;
    }
    view.input.value = '';
    void this.#act(view.post.name, async (request) => {
      const { id } = await this.backend.comment(this.person.id, view.post.id, content, request);
      // The feed may have been drawn anew meanwhile.
      this.#addComment(this.#views.get(view.post.id) ?? view, { id, user_id: this.person.id, content });
    });
  }

  #deleteComment(post, id) {
    post.comments = post.comments.filter((comment) => String(comment.id) !== id);
    const view = this.#views.get(post.id);
    if (view !== undefined) this.#drawComments(view);
    void this.#act(post.name, (request) => this.backend.deleteComment(this.person.id, id, request));
  }

  async #act(whom, call) {
    const request = this.backend.newRequestId();
    this.clicked(request, { who: this.person, whom });
    try {
      await call(request);
      this.complain(null);
    } catch (error) {
      this.complain(error);
      this.loadSoon();
    }
  }
}

/** A number that changes moves a little. */
function tick(element, value) {
  if (element.textContent === String(value)) return;
  setText(element, String(value));
  replay(element, 'ticked');
}

function wordFor(comments) {
  return comments === 1 ? 'comment' : 'comments';
}
