-- The hot statements of the version whose schema was 0003, as its processes send them while they are replaced one by
-- one. Not to be changed: they are what is out there.

-- name: create
WITH
    requests AS (
        INSERT INTO request_ids (principal, request_id, digest, answer)
        SELECT i.principal, i.request_id, i.digest, string_to_array(i.answer, ' ')::uuid[]
        FROM unnest(%(r_principal)s::text[], %(r_request_id)s::text[], %(r_digest)s::bytea[], %(r_answer)s::text[])
             AS i (principal, request_id, digest, answer)
        ORDER BY i.principal, i.request_id
    ),
    quota AS (
        INSERT INTO owner_days AS d (owner, day, jobs)
        SELECT i.owner, (coalesce(%(now)s::timestamptz, now()) AT TIME ZONE 'UTC')::date, i.jobs
        FROM unnest(%(q_owner)s::text[], %(q_jobs)s::int4[]) AS i (owner, jobs)
        ORDER BY i.owner
        ON CONFLICT (owner, day) DO UPDATE SET jobs = d.jobs + excluded.jobs
        RETURNING owner, jobs
    ),
    made_jobs AS (INSERT INTO jobs (uid, job_id, display_name, target, request, request_type, queue, max_attempts, initial_backoff, backoff_multiplier, max_backoff, max_age, after_lost_worker, timeout, overlap_policy, owner, principal, labels, retention_days, create_time, update_time) SELECT i.uid, i.job_id, i.display_name, i.target, i.request, i.request_type, i.queue, i.max_attempts, i.initial_backoff, i.backoff_multiplier, i.max_backoff, i.max_age, i.after_lost_worker, i.timeout, i.overlap_policy, i.owner, i.principal, i.labels, i.retention_days, coalesce(%(now)s::timestamptz, now()), coalesce(%(now)s::timestamptz, now()) FROM unnest(%(j_uid)s::uuid[], %(j_job_id)s::text[], %(j_display_name)s::text[], %(j_target)s::text[], %(j_request)s::bytea[], %(j_request_type)s::text[], %(j_queue)s::text[], %(j_max_attempts)s::int2[], %(j_initial_backoff)s::interval[], %(j_backoff_multiplier)s::float8[], %(j_max_backoff)s::interval[], %(j_max_age)s::interval[], %(j_after_lost_worker)s::text[], %(j_timeout)s::interval[], %(j_overlap_policy)s::text[], %(j_owner)s::text[], %(j_principal)s::text[], %(j_labels)s::jsonb[], %(j_retention_days)s::int2[]) AS i (uid, job_id, display_name, target, request, request_type, queue, max_attempts, initial_backoff, backoff_multiplier, max_backoff, max_age, after_lost_worker, timeout, overlap_policy, owner, principal, labels, retention_days) ORDER BY i.job_id),
    made_schedules AS (INSERT INTO schedules (uid, job_uid, schedule_id, display_name, kind, spec, time_zone, start_time, end_time, max_firings, jitter, dst_policy, catchup_policy, catchup_window, request, request_type, evaluated_until, zone_version, exclusions, calendar_ids, timing_time, stale, create_time, update_time) SELECT i.uid, i.job_uid, i.schedule_id, i.display_name, i.kind, i.spec, i.time_zone, i.start_time, i.end_time, i.max_firings, i.jitter, i.dst_policy, i.catchup_policy, i.catchup_window, i.request, i.request_type, i.evaluated_until, i.zone_version, i.exclusions, string_to_array(i.calendar_ids, ' '), i.timing_time, i.calendar_ids <> '', coalesce(%(now)s::timestamptz, now()), coalesce(%(now)s::timestamptz, now()) FROM unnest(%(s_uid)s::uuid[], %(s_job_uid)s::uuid[], %(s_schedule_id)s::text[], %(s_display_name)s::text[], %(s_kind)s::text[], %(s_spec)s::jsonb[], %(s_time_zone)s::text[], %(s_start_time)s::timestamptz[], %(s_end_time)s::timestamptz[], %(s_max_firings)s::int4[], %(s_jitter)s::interval[], %(s_dst_policy)s::text[], %(s_catchup_policy)s::text[], %(s_catchup_window)s::interval[], %(s_request)s::bytea[], %(s_request_type)s::text[], %(s_evaluated_until)s::timestamptz[], %(s_zone_version)s::text[], %(s_exclusions)s::jsonb[], %(s_calendar_ids)s::text[], %(s_timing_time)s::timestamptz[]) AS i (uid, job_uid, schedule_id, display_name, kind, spec, time_zone, start_time, end_time, max_firings, jitter, dst_policy, catchup_policy, catchup_window, request, request_type, evaluated_until, zone_version, exclusions, calendar_ids, timing_time) ORDER BY i.uid),
    made_plans AS (INSERT INTO executions (uid, job_uid, schedule_uid, schedule_id, origin, target, queue, owner, state, nominal_time, due_time, ready_time, expire_time, request, request_type, retention_days, recurring, overlap, create_time) SELECT i.uid, i.job_uid, i.schedule_uid, i.schedule_id, i.origin, i.target, i.queue, i.owner, i.state, i.nominal_time, i.due_time, i.ready_time, i.expire_time, i.request, i.request_type, i.retention_days, i.recurring, i.overlap, coalesce(%(now)s::timestamptz, now()) FROM unnest(%(e_uid)s::uuid[], %(e_job_uid)s::uuid[], %(e_schedule_uid)s::uuid[], %(e_schedule_id)s::text[], %(e_origin)s::text[], %(e_target)s::text[], %(e_queue)s::text[], %(e_owner)s::text[], %(e_state)s::text[], %(e_nominal_time)s::timestamptz[], %(e_due_time)s::timestamptz[], %(e_ready_time)s::timestamptz[], %(e_expire_time)s::timestamptz[], %(e_request)s::bytea[], %(e_request_type)s::text[], %(e_retention_days)s::int2[], %(e_recurring)s::bool[], %(e_overlap)s::text[]) AS i (uid, job_uid, schedule_uid, schedule_id, origin, target, queue, owner, state, nominal_time, due_time, ready_time, expire_time, request, request_type, retention_days, recurring, overlap) ORDER BY i.uid),
    over AS (SELECT whispr_over_quota(owner) FROM quota WHERE jobs > %(limit)s),
    near AS (SELECT pg_notify('whispr_due', '') WHERE %(first)s <= coalesce(%(now)s::timestamptz, now()) + interval '2.0 seconds')
SELECT coalesce(%(now)s::timestamptz, now()), (SELECT count(*) FROM over), (SELECT count(*) FROM near)

-- name: release
WITH due AS (
    SELECT uid FROM executions
    WHERE queue = %(queue)s AND state = 'PENDING' AND held_by IS NULL AND ready_time <= %(until)s
      AND NOT recurring AND overlap IS NULL
      AND (split_part(target, '/', 1) <> ALL(%(shut)s::text[]) OR uid = ANY(%(probes)s::uuid[]))
    ORDER BY ready_time LIMIT %(room)s FOR UPDATE SKIP LOCKED
)
UPDATE executions e
SET state = CASE WHEN e.expire_time > coalesce(%(now)s::timestamptz, now()) THEN 'QUEUED' ELSE 'FAILED' END,
    reason = CASE WHEN e.expire_time > coalesce(%(now)s::timestamptz, now()) THEN '' ELSE 'EXPIRED' END,
    finish_time = CASE WHEN e.expire_time > coalesce(%(now)s::timestamptz, now()) THEN NULL ELSE coalesce(%(now)s::timestamptz, now()) END,
    queue_time = coalesce(%(now)s::timestamptz, now())
FROM due WHERE e.uid = due.uid
RETURNING e.uid, e.ready_time, e.state, e.target

-- name: claim
WITH mine AS (
    SELECT e.uid, e.job_uid, i.token
    FROM unnest(%(uids)s::uuid[], %(tokens)s::uuid[]) AS i (uid, token) JOIN executions e ON e.uid = i.uid
    WHERE e.state = 'QUEUED' AND e.ready_time <= coalesce(%(now)s::timestamptz, now()) + %(lead)s::interval
      AND (%(targets)s::text[] IS NULL OR e.target = ANY(%(targets)s::text[]))
      AND EXISTS (SELECT FROM workers w WHERE w.uid = %(worker)s AND w.expire_time > coalesce(%(now)s::timestamptz, now()))
    ORDER BY e.uid FOR UPDATE OF e SKIP LOCKED
)

UPDATE executions e
SET state = 'RUNNING', claim_token = mine.token, claim_time = coalesce(%(now)s::timestamptz, now()), deadline_time = coalesce(%(now)s::timestamptz, now()) + j.timeout,
    worker_uid = %(worker)s, attempt = e.attempt + 1,
    job_revision = CASE e.job_revision WHEN 0 THEN j.revision ELSE e.job_revision END
FROM mine JOIN jobs j ON j.uid = mine.job_uid
WHERE e.uid = mine.uid
RETURNING e.uid, e.claim_token, j.job_id, e.target, e.queue, coalesce(e.request, j.request), e.attempt, e.counted, e.nominal_time, e.due_time, e.ready_time, e.expire_time, e.start_time, e.attempts, e.cancel_request_time IS NOT NULL, j.max_attempts, j.initial_backoff, j.backoff_multiplier, j.max_backoff, j.max_age, j.after_lost_worker, j.timeout

-- name: record
WITH i AS MATERIALIZED (SELECT * FROM unnest(%(uid)s::uuid[], %(token)s::uuid[], %(state)s::text[], %(reason)s::text[], %(ready_time)s::timestamptz[], %(begun)s::bool[], %(counted)s::bool[], %(start_time)s::timestamptz[], %(code)s::int2[], %(message)s::text[], %(attempts)s::jsonb[], %(response)s::bytea[], %(response_type)s::text[]) AS i (uid, token, state, reason, ready_time, begun, counted, start_time, code, message, attempts, response, response_type)),
held AS MATERIALIZED (
    SELECT e.uid, e.cancel_request_time IS NOT NULL AS asked
    FROM i JOIN executions e ON e.uid = i.uid AND e.claim_token = i.token ORDER BY e.uid FOR UPDATE OF e
),
ended AS (
    DELETE FROM executions e USING i JOIN held ON held.uid = i.uid WHERE e.uid = i.uid AND (i.state IN ('SUCCEEDED', 'CANCELLED') OR (i.state = 'PENDING' AND held.asked))
    RETURNING e.uid, e.job_uid, e.schedule_uid, e.schedule_id, e.origin, e.target, e.queue, e.owner,
        CASE i.state WHEN 'PENDING' THEN 'CANCELLED' ELSE i.state END AS state,
        CASE i.state WHEN 'PENDING' THEN 'CALLER' ELSE i.reason END AS reason,
        e.nominal_time, e.due_time, e.ready_time, e.expire_time,
        CASE WHEN i.begun THEN e.attempt ELSE e.attempt - 1 END AS attempt,
        e.counted + i.counted::int AS counted, coalesce(e.start_time, i.start_time) AS start_time, e.worker_uid,
        coalesce(i.code, e.code) AS code, i.message, coalesce(i.attempts, e.attempts) AS attempts, e.request,
        e.request_type, i.response, i.response_type, e.cancel_request_time, e.job_revision, e.retention_days,
        e.create_time, coalesce(%(now)s::timestamptz, now()) AS finish_time
),
moved AS (INSERT INTO execution_history (uid, job_uid, schedule_uid, schedule_id, origin, target, queue, owner, state, reason, nominal_time, due_time, ready_time, expire_time, attempt, counted, start_time, finish_time, worker_uid, code, message, attempts, request, request_type, response, response_type, cancel_request_time, job_revision, retention_days, create_time, prune_day) SELECT ended.uid, ended.job_uid, ended.schedule_uid, ended.schedule_id, ended.origin, ended.target, ended.queue, ended.owner, ended.state, ended.reason, ended.nominal_time, ended.due_time, ended.ready_time, ended.expire_time, ended.attempt, ended.counted, ended.start_time, ended.finish_time, ended.worker_uid, ended.code, ended.message, ended.attempts, ended.request, ended.request_type, ended.response, ended.response_type, ended.cancel_request_time, ended.job_revision, ended.retention_days, ended.create_time, coalesce(((coalesce(%(now)s::timestamptz, now())) AT TIME ZONE 'UTC')::date + ended.retention_days + 1, '9999-12-31'::date) FROM ended),
kept AS (
    UPDATE executions e
    SET state = i.state, reason = i.reason, claim_token = NULL, claim_time = NULL, deadline_time = NULL,
        ready_time = coalesce(i.ready_time, e.ready_time),
        attempt = CASE WHEN i.begun THEN e.attempt ELSE e.attempt - 1 END,
        counted = e.counted + i.counted::int, start_time = coalesce(e.start_time, i.start_time),
        code = coalesce(i.code, e.code), message = CASE WHEN i.begun THEN i.message ELSE e.message END,
        attempts = coalesce(i.attempts, e.attempts),
        finish_time = CASE i.state WHEN 'FAILED' THEN coalesce(%(now)s::timestamptz, now()) END
    FROM i JOIN held ON held.uid = i.uid WHERE e.uid = i.uid AND NOT (i.state IN ('SUCCEEDED', 'CANCELLED') OR (i.state = 'PENDING' AND held.asked))
    RETURNING e.uid
)
SELECT uid FROM ended UNION ALL SELECT uid FROM kept

-- name: acquire
UPDATE leadership SET term = term + 1, holder = %(holder)s, expire_time = coalesce(%(now)s::timestamptz, now()) + %(ttl)s::interval
WHERE expire_time < coalesce(%(now)s::timestamptz, now()) RETURNING term

-- name: renew
UPDATE leadership SET expire_time = coalesce(%(now)s::timestamptz, now()) + %(ttl)s::interval
WHERE holder = %(holder)s AND term = %(term)s AND expire_time >= coalesce(%(now)s::timestamptz, now()) RETURNING term

-- name: beat
WITH beat AS (
    INSERT INTO workers AS w (uid, host, pid, version, queues, start_time, heartbeat_time, expire_time, last_start_time)
    VALUES (%(uid)s, %(host)s, %(pid)s, %(version)s, %(queues)s::text[], coalesce(%(now)s::timestamptz, now()), coalesce(%(now)s::timestamptz, now()), coalesce(%(now)s::timestamptz, now()) + %(ttl)s::interval,
            %(last_start)s::timestamptz)
    ON CONFLICT (uid) DO UPDATE SET heartbeat_time = excluded.heartbeat_time, expire_time = excluded.expire_time,
        last_start_time = coalesce(excluded.last_start_time, w.last_start_time)
    RETURNING uid
)
SELECT coalesce(%(now)s::timestamptz, now()), e.uid, e.claim_token, e.claim_time
FROM beat LEFT JOIN executions e ON e.worker_uid = %(uid)s AND e.state = 'RUNNING'

-- name: lost
SELECT e.uid, e.claim_token, e.attempt, e.counted, e.claim_time, e.deadline_time, e.expire_time, e.start_time,
       e.attempts, e.worker_uid,
       e.cancel_request_time IS NOT NULL AS cancel_requested, e.target, e.queue, j.max_attempts, j.initial_backoff, j.backoff_multiplier, j.max_backoff, j.max_age, j.after_lost_worker, j.timeout, coalesce(%(now)s::timestamptz, now()) AS moment
FROM executions e JOIN jobs j ON j.uid = e.job_uid
WHERE e.state = 'RUNNING' AND EXISTS (SELECT FROM leadership WHERE term = %(term)s AND expire_time >= coalesce(%(now)s::timestamptz, now()))
  AND (NOT EXISTS (SELECT FROM workers w WHERE w.uid = e.worker_uid AND w.expire_time > coalesce(%(now)s::timestamptz, now()))
       OR e.deadline_time + %(grace)s::interval < coalesce(%(now)s::timestamptz, now()))
ORDER BY e.uid LIMIT %(limit)s

-- name: look ahead
SELECT min(ready_time), bool_or(held) FROM (
    SELECT (SELECT ready_time FROM executions WHERE queue = q AND state = 'PENDING' AND held_by IS NULL
            ORDER BY ready_time LIMIT 1) AS ready_time,
           EXISTS (SELECT FROM executions WHERE state = 'PENDING' AND held_by IS NOT NULL)
           OR EXISTS (SELECT FROM breakers WHERE state <> 'CLOSED') AS held
    FROM unnest(ARRAY['HIGH', 'MEDIUM', 'LOW']) AS q
) AS heads

-- name: expire
WITH waiting AS (
    SELECT uid FROM executions WHERE state = 'PENDING' AND (held_by IS NOT NULL OR attempt > 0) AND expire_time <= coalesce(%(now)s::timestamptz, now())
      AND held_by IS DISTINCT FROM 'PAUSED'
    ORDER BY expire_time LIMIT 1000 FOR UPDATE SKIP LOCKED
), queued AS (
    SELECT uid FROM executions
    WHERE state = 'QUEUED' AND ready_time < coalesce(%(now)s::timestamptz, now()) - interval '1 minute' AND expire_time <= coalesce(%(now)s::timestamptz, now())
    LIMIT 1000 FOR UPDATE SKIP LOCKED
)
UPDATE executions SET state = 'FAILED', reason = 'EXPIRED', held_by = NULL, finish_time = coalesce(%(now)s::timestamptz, now())
WHERE uid IN (SELECT uid FROM waiting UNION ALL SELECT uid FROM queued)
RETURNING target

-- name: room
SELECT q, %(depth)s - (SELECT count(*) FROM executions WHERE queue = q AND state = 'QUEUED')
FROM unnest(ARRAY['HIGH', 'MEDIUM', 'LOW']) AS q

-- name: try lock
SELECT pg_try_advisory_xact_lock(1380273221), coalesce(%(now)s::timestamptz, now())

-- name: cancellations
SELECT claim_token FROM executions
WHERE worker_uid = %(worker)s AND state = 'RUNNING' AND cancel_request_time IS NOT NULL

-- name: sweep
WITH overdue AS (
    SELECT e.uid, e.job_uid
    FROM executions e
    WHERE e.state = 'QUEUED' AND e.queue = %(queue)s AND e.ready_time <= coalesce(%(now)s::timestamptz, now()) - %(after)s::interval
      AND e.target = ANY(%(targets)s::text[])
      AND EXISTS (SELECT FROM workers w WHERE w.uid = %(worker)s AND w.expire_time > coalesce(%(now)s::timestamptz, now()))
    ORDER BY e.ready_time LIMIT cardinality(%(tokens)s::uuid[]) FOR UPDATE OF e SKIP LOCKED
),
mine AS (
    SELECT o.uid, o.job_uid, t.token
    FROM (SELECT uid, job_uid, row_number() OVER () AS n FROM overdue) AS o
    JOIN unnest(%(tokens)s::uuid[]) WITH ORDINALITY AS t (token, n) ON t.n = o.n
)

UPDATE executions e
SET state = 'RUNNING', claim_token = mine.token, claim_time = coalesce(%(now)s::timestamptz, now()), deadline_time = coalesce(%(now)s::timestamptz, now()) + j.timeout,
    worker_uid = %(worker)s, attempt = e.attempt + 1,
    job_revision = CASE e.job_revision WHEN 0 THEN j.revision ELSE e.job_revision END
FROM mine JOIN jobs j ON j.uid = mine.job_uid
WHERE e.uid = mine.uid
RETURNING e.uid, e.claim_token, j.job_id, e.target, e.queue, coalesce(e.request, j.request), e.attempt, e.counted, e.nominal_time, e.due_time, e.ready_time, e.expire_time, e.start_time, e.attempts, e.cancel_request_time IS NOT NULL, j.max_attempts, j.initial_backoff, j.backoff_multiplier, j.max_backoff, j.max_age, j.after_lost_worker, j.timeout
