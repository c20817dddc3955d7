/**
 * Who lives in the demo's social app: three people whom one plays, and a crowd for the simulator.
 *
 * What must hold: made once, in one transaction, so that a demo killed while starting starts clean; kept after that.
 */
import { readFile } from 'node:fs/promises';
import type pg from 'pg';
import { inTransaction } from '../postgres/transaction.js';

export interface Person {
  readonly id: string;
  readonly name: string;
}

export interface People {
  /** Ada, Bo and Cleo. */
  readonly cast: readonly Person[];
  readonly crowd: readonly Person[];
  /** Ids of posts. */
  readonly castPosts: readonly string[];
  readonly crowdPosts: readonly string[];
}

/** What the backend works as: it may write the app's tables and has no right on schema belfry. */
export const backendRole = 'social_backend';

const castPosts: readonly (readonly [name: string, body: string])[] = [
  ['Cleo', 'Does anybody know a kind way up the ridge in winter?'],
  ['Bo', 'Sourdough, attempt nine. It finally rose.'],
  ['Ada', 'First light over the harbour. Worth getting up for.'],
];
const earlyComments: readonly (readonly [author: string, name: string, content: string])[] = [
  ['Cleo', 'Hana Berg', 'The east path, if the snow is firm.'],
  ['Ada', 'Noor Costa', 'I could smell the salt from here.'],
];
const castNames = ['Ada', 'Bo', 'Cleo'];

const givenNames =
  'Amir Beata Chidi Dora Emre Freya Goran Hana Idris Jonas Kaya Linh Mira Noor Otto Priya Quinn Rosa Sami Tove'.split(
    ' ',
  );
const familyNames = 'Abbas Berg Costa Diaz Endo Fox Gallo Holm Ivers Jain Klein Lund Moreau Nagy Okoye'.split(' ');
const crowdSize = givenNames.length * familyNames.length;

/** Makes tables and people where there are none yet, and says who is there. */
export async function settlePeople(client: pg.ClientBase): Promise<People> {
  await inTransaction(client, async () => {
    // Two demos on one data directory cannot run, but two that start may get this far.
    await client.query(`select pg_advisory_xact_lock(hashtext('belfry demo'))`);
    const { rows } = await client.query<{ there: boolean }>(`select to_regclass('public.users') is not null as there`);
    if (rows[0]?.there !== true) {
      await client.query(await readFile(new URL('./social.sql', import.meta.url), 'utf8'));
      await settle(client);
      await client.query(`
        do $$ begin
          create role ${backendRole};
        exception when duplicate_object or unique_violation then null; -- roles belong to the whole server
        end $$;
        grant select, insert, update, delete on all tables in schema public to ${backendRole};`);
    }
  });
  return readPeople(client);
}

async function settle(client: pg.ClientBase): Promise<void> {
  const crowd = givenNames.flatMap((given) => familyNames.map((family) => `${given} ${family}`));
  await client.query(
    `insert into users (full_name)
     select name from unnest($1::text[]) with ordinality as n (name, at) order by at`,
    [[...castNames, ...crowd]],
  );
  await client.query(
    `insert into posts (user_id, body)
     select u.id, p.body
     from unnest($1::text[], $2::text[]) with ordinality as p (name, body, at)
     join users u on u.full_name = p.name
     order by p.at`,
    [castPosts.map(([name]) => name), castPosts.map(([, body]) => body)],
  );
  await client.query(
    `insert into posts (user_id, body)
     select u.id, 'A picture of ' || u.full_name || '''s day.'
     from users u
     where u.full_name <> all($1)
     order by u.id`,
    [castNames],
  );
  // Rows from before Belfry came: they notify nobody, but they count.
  await client.query(
    `insert into likes (user_id, post_id)
     select u.id, p.id
     from posts p join users a on a.id = p.user_id and a.full_name = any($1)
     join users u on u.full_name <> all($1) and (u.id * 7 + p.id * 13) % 23 < p.id`,
    [castNames],
  );
  await client.query(
    `insert into comments (user_id, post_id, content)
     select u.id, p.id, c.content
     from unnest($1::text[], $2::text[], $3::text[]) with ordinality as c (author, name, content, at)
     join users a on a.full_name = c.author
     join posts p on p.user_id = a.id
     join users u on u.full_name = c.name
     order by c.at`,
    [
      earlyComments.map(([author]) => author),
      earlyComments.map(([, name]) => name),
      earlyComments.map(([, , content]) => content),
    ],
  );
}

async function readPeople(client: pg.ClientBase): Promise<People> {
  const { rows: users } = await client.query<Person>(`select id, full_name as name from users order by id limit $1`, [
    castNames.length + crowdSize,
  ]);
  const cast = users.slice(0, castNames.length);
  const crowd = users.slice(castNames.length);
  const postsOf = async (people: readonly Person[]): Promise<string[]> => {
    const ids = people.map(({ id }) => id);
    const { rows } = await client.query<{ id: string }>('select id from posts where user_id = any($1) order by id', [
      ids,
    ]);
    return rows.map(({ id }) => id);
  };
  return { cast, crowd, castPosts: await postsOf(cast), crowdPosts: await postsOf(crowd) };
}
