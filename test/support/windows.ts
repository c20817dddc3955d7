/** Makes windows end. */

interface Database {
  query(text: string, values: unknown[]): Promise<unknown>;
}

/** As if the last pushes of these people, or of everybody, had been so long ago; `interval` as Postgres reads it. */
export async function ageWindows(
  db: Database,
  interval: string,
  userIds: readonly string[] | null = null,
): Promise<void> {
  await db.query(
    `with aged as (
       update belfry.notification set pushed_at = pushed_at - $1::interval, due_at = due_at - $1::interval
        where $2::text[] is null or user_id = any($2) returning id)
     update belfry.window_end w set due_at = w.due_at - $1::interval from aged where w.notification_id = aged.id`,
    [interval, userIds],
  );
}
