-- What users query. Plain SQL over the tables: no function, extension, file or path from outside.

CREATE VIEW evaluations AS
SELECT e.evaluation, e.checkpoint, s.benchmark, s.settings, s.settings_hash, s.n, s.created_at, e.study
FROM named_evaluations e JOIN stored_evaluations s USING (evaluation_id);

CREATE VIEW samples AS
SELECT e.evaluation, s.benchmark, m.metric, x.item, i.doc_id, i.prompt_hash, x.repeat, i.cluster, i.split, x.score,
       a.parsed, a.finish_reason, a.n_tokens, a.response, i.target
FROM named_evaluations e
JOIN stored_evaluations s USING (evaluation_id)
JOIN sample_scores x USING (evaluation_id)
JOIN metrics m USING (metric_id)
JOIN items i ON i.benchmark = s.benchmark AND i.item = x.item
JOIN answers a ON a.evaluation_id = x.evaluation_id AND a.item = x.item AND a.repeat = x.repeat;

CREATE VIEW scores AS
SELECT c.study, c.arm, c.checkpoint, s.benchmark, v.metric, v.n, v.clusters, v.score, v.stderr
FROM checkpoints c
JOIN named_evaluations e USING (checkpoint)
JOIN stored_evaluations s USING (evaluation_id)
JOIN evaluation_scores v USING (evaluation_id);

-- Every checkpoint beside its base, on every benchmark and metric of the study (target and probes too).
CREATE VIEW compared AS
SELECT a.study, a.base, a.target, a.arm, a.method, a.role AS arm_role, a.learning_rate, a.seed, c.step, c.checkpoint,
       s.benchmark, p.metric, b.role, b.near, b.metric AS study_metric, p.n, p.clusters, p.base_score, p.score, p."drop",
       p.lost, p.gained, p.ci_low, p.ci_high, p.p_value, s.settings_hash
FROM arms a
JOIN checkpoints c ON c.arm = a.arm
JOIN named_evaluations e ON e.checkpoint = c.checkpoint
JOIN stored_evaluations s ON s.evaluation_id = e.evaluation_id
JOIN study_benchmarks b ON b.study = a.study AND b.benchmark = s.benchmark
JOIN named_evaluations be ON be.study = a.study AND be.checkpoint = a.base
JOIN stored_evaluations bs ON bs.evaluation_id = be.evaluation_id AND bs.benchmark = s.benchmark
JOIN comparisons p ON p.evaluation_id = e.evaluation_id AND p.base_evaluation_id = bs.evaluation_id;

CREATE VIEW forgetting AS
SELECT study, base, target, arm, method, learning_rate, seed, step, checkpoint, benchmark, metric, near, n, base_score,
       score, "drop", lost, gained, ci_low, ci_high, p_value, settings_hash
FROM compared WHERE role = 'retention';

CREATE VIEW gain_drop AS
SELECT g.study, g.base, g.target, g.arm, g.method, g.learning_rate, g.seed, g.step, g.checkpoint,
       0 - max(g."drop") FILTER (g.role = 'target' AND g.metric = g.study_metric) AS gain,
       avg(g."drop") FILTER (g.role = 'retention' AND g.metric = g.study_metric) AS "drop",
       avg(g."drop") FILTER (g.role = 'retention' AND g.metric = g.study_metric AND NOT g.near) AS drop_far,
       0 - max(g."drop") FILTER (g.role = 'target' AND g.metric = 'exact') AS gain_exact,
       CAST(NULL AS DOUBLE) AS kl_forward, CAST(NULL AS DOUBLE) AS kl_reverse,
       any_value(c.path_length) AS path_length, any_value(c.weight_distance) AS weight_distance,
       any_value(a.tokens_trained) AS tokens_trained, any_value(a.seconds) AS seconds, any_value(a.role) AS role
FROM compared g JOIN checkpoints c USING (checkpoint) JOIN arms a ON a.arm = g.arm
GROUP BY ALL;

CREATE VIEW flips AS
SELECT g.study, g.arm, g.checkpoint, g.benchmark, x.item,
       CASE WHEN x.score < y.score THEN 'lost' ELSE 'gained' END AS direction,
       i.prompt, ay.response AS base_response, ax.response, i.target
FROM compared g
JOIN named_evaluations e ON e.checkpoint = g.checkpoint
JOIN stored_evaluations s ON s.evaluation_id = e.evaluation_id AND s.benchmark = g.benchmark
JOIN named_evaluations be ON be.study = g.study AND be.checkpoint = g.base
JOIN stored_evaluations bs ON bs.evaluation_id = be.evaluation_id AND bs.benchmark = g.benchmark
JOIN metrics m ON m.metric = g.metric
JOIN sample_scores x ON x.evaluation_id = s.evaluation_id AND x.metric_id = m.metric_id
JOIN sample_scores y ON y.evaluation_id = bs.evaluation_id AND y.metric_id = m.metric_id
                    AND y.item = x.item AND y.repeat = x.repeat
JOIN answers ax ON ax.evaluation_id = s.evaluation_id AND ax.item = x.item AND ax.repeat = x.repeat
JOIN answers ay ON ay.evaluation_id = bs.evaluation_id AND ay.item = y.item AND ay.repeat = y.repeat
JOIN items i ON i.benchmark = g.benchmark AND i.item = x.item
WHERE g.metric = g.study_metric AND g.lost IS NOT NULL AND x.score <> y.score;

-- The last checkpoint of every finished arm. Every seed's value is listed; there is no interval over seeds here.
CREATE VIEW method_summary AS
WITH last AS (
    SELECT g.*, a.style_distance, row_number() OVER (PARTITION BY g.arm ORDER BY g.step DESC) AS back
    FROM gain_drop g JOIN arms a USING (arm) WHERE a.role <> 'base' AND a.status = 'done'
)
SELECT study, base, target, method, learning_rate, count(*) AS arms, count(DISTINCT seed) AS seeds,
       avg(gain) AS gain, CAST(NULL AS DOUBLE) AS gain_low, CAST(NULL AS DOUBLE) AS gain_high,
       avg("drop") AS "drop", CAST(NULL AS DOUBLE) AS drop_low, CAST(NULL AS DOUBLE) AS drop_high,
       avg(drop_far) AS drop_far, avg(gain_exact) AS gain_exact,
       avg(style_distance) AS style_distance, list(gain ORDER BY seed) AS gain_by_seed, list("drop" ORDER BY seed) AS drop_by_seed, role,
       'last checkpoint of every seed, all items' AS rule
FROM last WHERE back = 1
GROUP BY study, base, target, method, learning_rate, role;

CREATE VIEW controls AS
WITH margin AS (
    SELECT study, coalesce(CAST(json_extract(primary_contrast, '$.margin') AS DOUBLE), 0.02) AS margin
    FROM studies WHERE is_current
), last AS (
    SELECT a.study, a.method AS control, a.arm, a.status, max(c.step) AS step, max(c.weight_distance) AS weight_distance
    FROM arms a LEFT JOIN checkpoints c USING (arm) WHERE a.role = 'control' GROUP BY ALL
), seen AS (
    SELECT l.study, l.control, l.arm, l.status, l.weight_distance, g.gain, g."drop",
           (SELECT sum(lost + gained) FROM compared f WHERE f.arm = l.arm AND f.lost IS NOT NULL) AS flips,
           (SELECT max(abs(f."drop")) FROM compared f WHERE f.arm = l.arm) AS largest_change
    FROM last l LEFT JOIN gain_drop g ON g.arm = l.arm AND g.step = l.step
)
SELECT study, control, arm,
       CASE control
           WHEN 'learning_rate_0' THEN 'no change at all: every answer as the base gives it'
           WHEN 'constant_reward' THEN 'no change at all: equal rewards carry no signal'
           WHEN 'base_mixture' THEN 'drop within the margin: more of the same training'
           WHEN 'style_placebo' THEN 'no gain: the content is wrong, only the style is taught'
       END AS expectation,
       gain, "drop", flips, weight_distance,
       CASE
           WHEN status <> 'done' OR "drop" IS NULL THEN NULL
           WHEN control IN ('learning_rate_0', 'constant_reward')
               THEN weight_distance = 0 AND flips = 0 AND largest_change = 0
           WHEN control = 'base_mixture' THEN abs("drop") <= margin
           WHEN control = 'style_placebo' THEN gain <= margin
       END AS passed
FROM seen JOIN margin USING (study);
