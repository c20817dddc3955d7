/**
 * Names taken apart: `blog_postlike`, `PostLikes`, `"_LikedPosts"` and `post-likes` are all the words post and like. Singular, lower
 * case, verbs in their plain form; what tools put around names (Prisma's underscore, `tbl_`) is dropped.
 */

/** Words with a meaning for `init`; also what names without separators are split by. */
export const LIKE = wordSet(
  'like favorite favourite fave fav reaction heart clap vote upvote star kudo kudos applause love thumb react',
);
/** Those of LIKE that can be against it. */
export const VOTE = wordSet('vote thumb');
export const REPOST = wordSet('repost boost reblog retweet reshare share renote');
export const COMMENT = wordSet('comment reply answer');
export const FOLLOW = wordSet(
  'follow follower following followee friendship friend subscription subscriber relationship relation connection fan watch',
);
export const BLOCK = wordSet('block ignore');
export const MUTE = wordSet('mute silence');
export const MESSAGE = wordSet('message dm pm chatmessage');
export const CONVERSATION = wordSet('conversation chat room thread channel dialog dialogue group match');
export const MEMBER = wordSet(
  'participant participation member membership user recipient people person account profile attendee',
);
export const MENTION = wordSet('mention usertag');
export const REQUEST = wordSet('request invitation invite');
export const APPLICATION = wordSet('application applicant candidacy');
export const JOB = wordSet('job position vacancy opening listing offer role opportunity');
const PERSON = wordSet('user account member person profile author actor people customer player');

/** Tables that the social words don't make social: settings, statistics, catalogues, money. */
export const NOISE = wordSet(
  'count counter stat statistic summary aggregate type kind category template log audit history archive version setting preference option poll survey election ballot ' +
    'queue job migration plan invoice payment price billing token session attachment file image media view draft report flag digest email delivery read receipt tag domain',
);

const CONTENT = wordSet(
  'post article status tweet note photo story entry item video question topic submission link publication pin page recipe review track song playlist ' +
    'album image picture event project idea issue snippet gist thread toot blog course lesson activity update feed listing product',
);

const SPLIT_WORDS = [
  ...new Set(
    [
      ...[
        LIKE,
        REPOST,
        COMMENT,
        FOLLOW,
        BLOCK,
        MUTE,
        MESSAGE,
        CONVERSATION,
        MEMBER,
        MENTION,
        REQUEST,
        APPLICATION,
        JOB,
        PERSON,
      ],
      CONTENT,
      wordSet('direct private blog forum social community media subreddit'),
    ].flatMap((set) => [...set]),
  ),
].filter((word) => word.length >= 3 && word !== 'fav');

const IRREGULAR: Readonly<Record<string, string>> = {
  people: 'person',
  persons: 'person',
  statuses: 'status',
  status: 'status',
  news: 'news',
  series: 'series',
  media: 'media',
  kudos: 'kudos',
  alumni: 'alumnus',
  did: 'did',
  liked: 'like',
  likes: 'like',
  liking: 'like',
  favorited: 'favorite',
  favourited: 'favourite',
  hearted: 'heart',
  starred: 'star',
  voted: 'vote',
  reacted: 'reaction',
  follows: 'follow',
  blocked: 'block',
  ignored: 'ignore',
  ignores: 'ignore',
  blocks: 'block',
  blocking: 'block',
  blockings: 'block',
  muted: 'mute',
  muting: 'mute',
  mutings: 'mute',
  reposted: 'repost',
  mentioned: 'mention',
  followings: 'following',
  followable: 'follow',
  followables: 'follow',
};

/** Plain words of a name, in order. Verb forms stay in column names (`followed` is not `follower`), so they are only mapped with `verbs`. */
export function wordsOf(name: string, { verbs = true }: { readonly verbs?: boolean } = {}): string[] {
  return (
    name
      .replace(/^_+/, '')
      .replace(/([a-z0-9])([A-Z])/g, '$1_$2')
      .replace(/([A-Z]+)([A-Z][a-z])/g, '$1_$2')
      .toLowerCase()
      .split(/[^a-z0-9]+/)
      .filter((word) => word !== '' && !['tbl', 'tb', 't', 'app'].includes(word))
      // `post_entity`, as TypeORM makes of a class PostEntity.
      .filter((word, i) => word !== 'entity' || i === 0)
      .flatMap(segments)
      .map((word) => (verbs ? (IRREGULAR[word] ?? singular(word)) : word))
  );
}

/** `followers` gives follower, `replies` reply, `classes` class. */
export function singular(word: string): string {
  const irregular = IRREGULAR[word];
  if (irregular !== undefined && !/ed$|ing$/.test(word)) return irregular;
  if (/ies$/.test(word) && word.length > 4) return word.replace(/ies$/, 'y');
  if (/(?:sses|shes|ches|xes|zes)$/.test(word)) return word.slice(0, -2);
  if (/[^sui]s$/.test(word)) return word.slice(0, -1);
  return word;
}

/** Any of the words is in the set. */
export function has(words: readonly string[], set: ReadonlySet<string>): boolean {
  return words.some((word) => set.has(word));
}

export const isContentWord = (word: string): boolean => CONTENT.has(word);

// `postlike` as Django writes it: split where known words fill the whole, longest first.
function segments(word: string): string[] {
  const plain = singular(word);
  if (IRREGULAR[word] !== undefined || SPLIT_WORDS.includes(plain)) return [word];
  for (const first of SPLIT_WORDS) {
    if (!plain.startsWith(first) || plain.length <= first.length + 1) continue;
    const rest = segments(word.slice(first.length));
    if (rest.every((part) => SPLIT_WORDS.includes(singular(part)))) return [first, ...rest];
  }
  return [word];
}

function wordSet(words: string): ReadonlySet<string> {
  return new Set(words.split(' '));
}
