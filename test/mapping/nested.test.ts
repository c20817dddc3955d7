/** Triggers of the application that change the row for which they fire: their events come before that of the statement. */

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startMapping } from './rig.js';
import type { Mapping } from './rig.js';

let mapping: Mapping;

beforeAll(async () => {
  mapping = await startMapping(
    `create table users (id int primary key);
     create table posts (id int primary key, user_id int references users);
     create table comments (
       id int primary key, user_id int references users, post_id int references posts, body text, hidden boolean not null default false);
     insert into users select generate_series(1, 9);
     insert into posts values (10, 1);
     create function moderate() returns trigger language plpgsql as $$
     begin
       if new.body like '%spam%' and not new.hidden then update comments set hidden = true where id = new.id; end if;
       if new.body like '%raw%' then update comments set body = replace(body, 'raw', 'clean') where id = new.id; end if;
       if new.body like '%misplaced%' and new.post_id is not null then update comments set post_id = null where id = new.id; end if;
       return null;
     end $$;
     create trigger moderate after insert or update on comments for each row execute function moderate();
     create table requests (from_id int, to_id int, primary key (from_id, to_id));
     create function answer() returns trigger language plpgsql as $$
     begin
       delete from requests where (from_id, to_id) in ((new.from_id, new.to_id), (new.to_id, new.from_id))
          and exists (select from requests where (from_id, to_id) = (new.to_id, new.from_id));
       return null;
     end $$;
     create trigger answer after insert on requests for each row execute function answer()`,
    `
  - name: comment
    type: comment
    table: comments
    key: [id]
    actor: user_id
    object: { kind: post, id: post_id }
    recipient: { path: [{ from: post_id, table: posts, match: id, take: user_id }] }
    channels: ['post:{post_id}']
    counter: { event: comment_update, field: comments_count }
    include: [body]
    when: not hidden
  - { name: request, type: friend_request, table: requests, key: [from_id, to_id], actor: from_id, recipient: to_id }`,
  );
});

afterAll(() => mapping.stop());

/** What channels are told, and what people hear. */
async function told(statement: string): Promise<string[]> {
  const published = await mapping.published(statement);
  return published.flatMap((publication) => {
    if (publication.to === 'user') {
      const { event, data } = JSON.parse(publication.frame) as {
        event: string;
        data: { type: string; user_id?: string };
      };
      return event === 'badge' ? [] : [`${publication.userId} ${event} ${data.user_id ?? ''}`.trimEnd()];
    }
    if (publication.to !== 'channel') return [];
    const { body } = publication.data['comment'] as { readonly body: string };
    return [`${publication.channel} ${body}`];
  });
}

describe('a row that a trigger changes', () => {
  it('as it is inserted is told, as it is then', async () => {
    expect(await told(`insert into comments values (1, 2, 10, 'raw')`)).toEqual(['1 notification 2', 'post:10 clean']);
  });

  it('so that it does not count is not told', async () => {
    expect(await told(`insert into comments values (2, 3, 10, 'spam')`)).toEqual([]);
    expect(await told(`insert into comments values (3, 3, 10, 'raw spam')`)).toEqual([]);
  });

  it('as it is updated is as the trigger left it', async () => {
    expect(await told(`insert into comments values (4, 4, 10, 'hello')`)).toEqual([
      '1 notification 4',
      'post:10 hello',
    ]);
    expect(await told(`update comments set body = 'raw again' where id = 4`)).toEqual(['post:10 clean again']);
    expect(await told(`update comments set body = 'spam' where id = 4`)).toEqual(['1 withdrawn']);
  });

  it('as it is updated in the page that brought it', async () => {
    expect(
      await told(`insert into comments values (5, 5, 10, 'hello'); update comments set body = 'spam' where id = 5`),
    ).toEqual([]);
    expect(
      await told(`insert into comments values (6, 6, 10, 'hello'); update comments set body = 'raw' where id = 6`),
    ).toEqual(['1 notification 6', 'post:10 clean']);
  });

  it('moves it away from where it was', async () => {
    expect(await told(`insert into comments values (7, 7, 10, 'hello')`)).toEqual([
      '1 notification 7',
      'post:10 hello',
    ]);
    expect(await told(`update comments set body = 'misplaced' where id = 7`)).toEqual(['1 withdrawn']);
  });

  it('deletes it', async () => {
    expect(await told(`insert into requests values (1, 2)`)).toEqual(['2 notification 1']);
    expect(await told(`insert into requests values (2, 1)`)).toEqual(['2 withdrawn']);
  });

  it('is hidden and shown again, is changed there and back: as ever', async () => {
    await told(`insert into comments values (8, 8, 10, 'hello')`);
    expect(
      await told(`update comments set hidden = true where id = 8; update comments set hidden = false where id = 8`),
    ).toEqual([]);
    expect(
      await told(`update comments set body = 'other' where id = 8; update comments set body = 'hello' where id = 8`),
    ).toEqual([]);
  });
});
