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

-- Every checkpoint beside its base, on every benchmark and metric of the study (target and probes too). What has a step and
-- no alpha holds trained checkpoints only: a blend (alpha) has the step of the checkpoint that was blended with the base.
CREATE VIEW compared AS
SELECT a.study, a.base, a.target, a.arm, a.method, a.role AS arm_role, a.learning_rate, a.seed, c.step, c.alpha, c.checkpoint,
       s.benchmark, p.metric, b.role, b.near, b.metric AS study_metric, p.n, p.clusters, p.base_score, p.score, p."drop",
       p.lost, p.gained, p.ci_low, p.ci_high, p.p_value, s.settings_hash
FROM arms a
JOIN checkpoints c ON c.arm = a.arm
JOIN named_evaluations e ON e.checkpoint = c.checkpoint
JOIN stored_evaluations s ON s.evaluation_id = e.evaluation_id
JOIN study_benchmarks b ON b.study = a.study AND b.benchmark = s.benchmark
JOIN comparisons p ON p.evaluation_id = e.evaluation_id AND p.base_evaluation_id = e.base_evaluation_id;

CREATE VIEW forgetting AS
SELECT study, base, target, arm, method, learning_rate, seed, step, checkpoint, benchmark, metric, near, n, base_score,
       score, "drop", lost, gained, ci_low, ci_high, p_value, settings_hash
FROM compared WHERE role = 'retention' AND alpha IS NULL;

-- KL to base along sampled answers; per token is the ratio of sums.
CREATE VIEW divergences AS
SELECT n.checkpoint, i.prompts, i.direction, sum(i.nats) / sum(i.tokens) AS nats_per_token,
       avg(i.nats) AS nats_per_sequence, count(*) AS n, n.study
FROM named_divergences n JOIN divergence_items i USING (divergence_id)
GROUP BY n.study, n.checkpoint, i.prompts, i.direction;

CREATE VIEW measured AS
WITH kl AS (
    SELECT study, checkpoint, any_value(nats_per_token) FILTER (direction = 'forward') AS forward,
           any_value(nats_per_token) FILTER (direction = 'reverse') AS reverse
    FROM divergences WHERE prompts = 'target' GROUP BY study, checkpoint
)
SELECT g.study, g.base, g.target, g.arm, g.method, g.learning_rate, g.seed, g.step, g.alpha, g.checkpoint,
       0 - max(g."drop") FILTER (g.role = 'target' AND g.metric = g.study_metric) AS gain,
       avg(g."drop") FILTER (g.role = 'retention' AND g.metric = g.study_metric) AS "drop",
       avg(g."drop") FILTER (g.role = 'retention' AND g.metric = g.study_metric AND NOT g.near) AS drop_far,
       0 - max(g."drop") FILTER (g.role = 'target' AND g.metric = 'exact') AS gain_exact,
       CASE WHEN g.checkpoint = g.base THEN 0.0 ELSE any_value(kl.forward) END AS kl_forward,
       CASE WHEN g.checkpoint = g.base THEN 0.0 ELSE any_value(kl.reverse) END AS kl_reverse,
       any_value(c.path_length) AS path_length, any_value(c.weight_distance) AS weight_distance,
       any_value(a.tokens_trained) AS tokens_trained, any_value(a.seconds) AS seconds, any_value(a.role) AS role
FROM compared g JOIN checkpoints c USING (checkpoint) JOIN arms a ON a.arm = g.arm
LEFT JOIN kl ON kl.study = g.study AND kl.checkpoint = g.checkpoint
GROUP BY g.study, g.base, g.target, g.arm, g.method, g.learning_rate, g.seed, g.step, g.alpha, g.checkpoint;

CREATE VIEW gain_drop AS
SELECT * EXCLUDE (alpha) FROM measured WHERE alpha IS NULL;

-- The straight line through weight space from the base (0) to the last checkpoint (1), of arms that have blends.
CREATE VIEW interpolated AS
WITH ends AS (SELECT arm, max(step) AS step FROM checkpoints GROUP BY arm HAVING count(alpha) > 0)
SELECT a.study, a.base, a.target, a.arm, a.method, a.learning_rate, a.seed,
       CASE WHEN m.checkpoint = a.base THEN 0 ELSE coalesce(m.alpha, 1) END AS alpha, m.checkpoint, m.gain, m."drop",
       m.drop_far, m.gain_exact, m.kl_forward, m.kl_reverse, m.weight_distance
FROM ends e JOIN arms a USING (arm) JOIN measured m ON m.study = a.study
     AND (m.checkpoint = a.base OR (m.arm = a.arm AND m.step = e.step));

CREATE VIEW flips AS
SELECT c.study, c.arm, c.checkpoint, s.benchmark, f.item, CASE WHEN f.lost THEN 'lost' ELSE 'gained' END AS direction,
       i.prompt, f.base_response, f.response, i.target
FROM checkpoints c
JOIN named_evaluations e ON e.checkpoint = c.checkpoint
JOIN stored_evaluations s ON s.evaluation_id = e.evaluation_id
JOIN study_benchmarks b ON b.study = c.study AND b.benchmark = s.benchmark
JOIN metrics m ON m.metric = b.metric
JOIN flipped f ON f.evaluation_id = e.evaluation_id AND f.base_evaluation_id = e.base_evaluation_id
              AND f.metric_id = m.metric_id
JOIN items i ON i.benchmark = s.benchmark AND i.item = f.item;

-- The last checkpoint of every finished arm, all items; nothing is selected, nothing averaged over learning rates.
CREATE VIEW method_summary AS
WITH last AS (
    SELECT g.*, a.style_distance, row_number() OVER (PARTITION BY g.arm ORDER BY g.step DESC) AS back
    FROM gain_drop g JOIN arms a USING (arm) WHERE a.role <> 'base' AND a.status = 'done'
), cell AS (
    SELECT study, base, target, method, learning_rate, role, count(*) AS arms, count(DISTINCT seed) AS seeds,
           avg(gain) AS gain, avg("drop") AS "drop", avg(drop_far) AS drop_far, avg(gain_exact) AS gain_exact,
           avg(kl_forward) AS kl_forward, avg(kl_reverse) AS kl_reverse, avg(weight_distance) AS weight_distance,
           avg(style_distance) AS style_distance, list(gain ORDER BY seed) AS gain_by_seed,
           list("drop" ORDER BY seed) AS drop_by_seed
    FROM last WHERE back = 1 GROUP BY study, base, target, method, learning_rate, role
), i AS (
    SELECT study, method, learning_rate, any_value(low) FILTER (quantity = 'gain') AS gain_low,
           any_value(high) FILTER (quantity = 'gain') AS gain_high, any_value(low) FILTER (quantity = 'drop') AS drop_low,
           any_value(high) FILTER (quantity = 'drop') AS drop_high,
           any_value(low) FILTER (quantity = 'drop_far') AS drop_far_low,
           any_value(high) FILTER (quantity = 'drop_far') AS drop_far_high,
           any_value(low) FILTER (quantity = 'gain_exact') AS gain_exact_low,
           any_value(high) FILTER (quantity = 'gain_exact') AS gain_exact_high,
           any_value(rule) FILTER (quantity = 'drop') AS interval_rule
    FROM intervals GROUP BY study, method, learning_rate
)
SELECT c.study, c.base, c.target, c.method, c.learning_rate, c.arms, c.seeds, c.gain, i.gain_low, i.gain_high, c."drop",
       i.drop_low, i.drop_high, c.drop_far, i.drop_far_low, i.drop_far_high, c.gain_exact, i.gain_exact_low,
       i.gain_exact_high, c.kl_forward, c.kl_reverse, c.weight_distance, c.style_distance, c.gain_by_seed, c.drop_by_seed,
       c.role, 'last checkpoint of every seed, all items; interval: ' || coalesce(i.interval_rule, 'none') AS rule
FROM cell c LEFT JOIN i ON i.study = c.study AND i.method = c.method AND i.learning_rate IS NOT DISTINCT FROM c.learning_rate;

-- Sequences of targets: every target at the end of every stage, of arms that learned several.
CREATE VIEW sequences AS
WITH several AS (
    SELECT a.arm FROM arms a JOIN checkpoints c USING (arm) WHERE a.status = 'done' GROUP BY a.arm HAVING max(c.stage) > 1
), ends AS (
    SELECT c.arm, c.stage, max_by(c.checkpoint, c.step) AS checkpoint
    FROM checkpoints c SEMI JOIN several USING (arm) WHERE c.alpha IS NULL GROUP BY c.arm, c.stage
), seen AS (
    SELECT g.study, g.base, g.target, g.arm, g.method, g.learning_rate, g.seed, e.stage, t.benchmark AS trained, g.benchmark,
           g.metric, b.stage AS learned, g.base_score, g.score
    FROM ends e
    JOIN compared g ON g.checkpoint = e.checkpoint
    JOIN study_benchmarks b ON b.study = g.study AND b.benchmark = g.benchmark AND b.stage IS NOT NULL
    JOIN study_benchmarks t ON t.study = g.study AND t.stage = e.stage
    WHERE g.metric IN (g.study_metric, 'exact')
)
SELECT study, base, target, arm, method, learning_rate, seed, stage, trained, benchmark, metric, base_score,
       coalesce(lag(score) OVER along, base_score) AS before,
       CASE WHEN stage >= learned THEN max(score) FILTER (stage = learned) OVER whole END AS own, score
FROM seen WINDOW along AS (PARTITION BY arm, benchmark, metric ORDER BY stage), whole AS (PARTITION BY arm, benchmark, metric);

-- Backward transfer (Lopez-Paz and Ranzato 2017), forgetting measure (Chaudhry et al. 2018), forward transfer, average accuracy.
CREATE VIEW backward_transfer AS
WITH placed AS (
    SELECT s.*, b.stage AS learned, s.metric = b.metric AS counted, max(s.stage) OVER (PARTITION BY s.arm) AS stages
    FROM sequences s JOIN study_benchmarks b ON b.study = s.study AND b.benchmark = s.benchmark
), each_target AS (
    SELECT study, base, target, arm, method, learning_rate, seed, counted, benchmark, learned, stages,
           max(score) FILTER (stage = stages) AS final, max(own) AS own, max(score) FILTER (stage < stages) AS best,
           max(before) FILTER (stage = learned) - max(base_score) AS ahead
    FROM placed GROUP BY ALL
)
SELECT study, base, target, arm, method, learning_rate, seed, CASE WHEN counted THEN 'primary' ELSE 'exact' END AS metric,
       avg(final - own) FILTER (learned < stages) AS bwt, avg(best - final) FILTER (learned < stages) AS forgetting_measure,
       avg(ahead) FILTER (learned > 1) AS fwt, avg(final) AS average, count(*) AS targets
FROM each_target GROUP BY study, base, target, arm, method, learning_rate, seed, counted, stages
HAVING count(*) = stages;

CREATE VIEW sequence_summary AS
WITH cell AS (
    SELECT study, base, target, method, learning_rate, metric, count(*) AS arms, count(DISTINCT seed) AS seeds,
           any_value(targets) AS targets, avg(bwt) AS bwt, avg(forgetting_measure) AS forgetting_measure, avg(fwt) AS fwt,
           avg(average) AS average, list(bwt ORDER BY seed) AS bwt_by_seed
    FROM backward_transfer GROUP BY ALL
)
SELECT c.study, c.base, c.target, c.method, c.learning_rate, c.metric, c.arms, c.seeds, c.targets, c.bwt, i.low AS bwt_low,
       i.high AS bwt_high, c.forgetting_measure, c.fwt, c.average, c.bwt_by_seed, i.rule
FROM cell c LEFT JOIN intervals i
  ON i.study = c.study AND i.method = c.method AND i.learning_rate IS NOT DISTINCT FROM c.learning_rate
     AND i.quantity = CASE WHEN c.metric = 'exact' THEN 'bwt_exact' ELSE 'bwt' END;

-- Drop where methods stand at the same gain, at the same distance from the base, at the same KL to it.
CREATE VIEW matched_gain AS
SELECT study, base, target, method, value AS gain, learning_rate, step, "drop", ci_low, ci_high, largest AS largest_gain,
       gain_stderr, state AS verdict, at_edge, learning_rates, seeds, rule
FROM matched WHERE axis = 'gain';
CREATE VIEW matched_distance AS
SELECT study, base, target, method, value AS weight_distance, learning_rate, step, "drop", ci_low, ci_high,
       largest AS largest_distance, state AS verdict, seeds, rule
FROM matched WHERE axis = 'weight_distance';
CREATE VIEW matched_kl AS
SELECT study, base, target, method, value AS kl_forward, learning_rate, step, "drop", ci_low, ci_high,
       largest AS largest_kl, state AS verdict, seeds, rule
FROM matched WHERE axis = 'kl_forward';

-- The base evaluated again under changes that must not matter. The one exempt comparison of unlike settings.
CREATE VIEW floor_runs AS
SELECT f.study, f.study || '/base' AS base, f.nuisance, s.benchmark, p.metric, p.n, p."drop", p.lost, p.gained,
       s.settings, bs.settings AS base_settings
FROM floor_evaluations f
JOIN stored_evaluations s USING (evaluation_id)
JOIN named_evaluations be ON be.study = f.study AND be.checkpoint = f.study || '/base'
JOIN stored_evaluations bs ON bs.evaluation_id = be.evaluation_id AND bs.benchmark = s.benchmark
JOIN comparisons p ON p.evaluation_id = f.evaluation_id AND p.base_evaluation_id = bs.evaluation_id;

CREATE VIEW noise_floor AS
SELECT study, base, benchmark, metric, count(*) AS reevaluations, any_value(n) AS n, max(abs("drop")) AS max_abs_drop,
       max(lost + gained) AS most_flips, max(lost + gained) / any_value(n) AS flip_rate,
       CASE WHEN max(lost + gained) = 0 THEN 3.0 / any_value(n) END AS flip_rate_upper,
       CASE WHEN max(lost + gained) = 0 THEN '0 of ' || any_value(n) || ' (≤ 3/' || any_value(n) || ')'
            WHEN max(lost + gained) > 0 THEN max(lost + gained) || ' of ' || any_value(n) END AS flips
FROM floor_runs GROUP BY study, base, benchmark, metric;

-- What guessing alone would do to k-choice items: right->wrong flips that need no forgetting.
CREATE VIEW chance_bounds AS
WITH known AS (
    SELECT c.*, b.choices AS k,
           greatest(0.0, least(1.0, (b.choices * c.base_score - 1) / (b.choices - 1))) AS known_share
    FROM compared c JOIN study_benchmarks b ON b.study = c.study AND b.benchmark = c.benchmark
    WHERE b.choices > 1 AND c.metric = c.study_metric AND c.alpha IS NULL
)
SELECT study, arm, method, learning_rate, seed, step, checkpoint, benchmark, metric, k AS choices, n, base_score, known_share,
       lost, CAST(0 AS DOUBLE) AS lost_if_guesses_persist, n * (1 - known_share) * (k - 1) / (k * k) AS lost_if_guesses_redrawn,
       "drop", "drop" * k / (k - 1) AS drop_corrected
FROM known;

-- What stands behind a score: answers that do not parse, are cut or empty; lenient score; spill; the two sides of safety.
CREATE VIEW audits AS
WITH refusals AS (SELECT DISTINCT benchmark, target FROM items WHERE kind = 'harmful'),
answered AS (
    SELECT e.study, e.checkpoint, s.benchmark, e.evaluation_id, e.base_evaluation_id, x.item, x.repeat, x.parsed, x.finish_reason, x.n_tokens,
           x.response, i.kind, r.target IS NOT NULL AS refused
    FROM named_evaluations e
    JOIN stored_evaluations s USING (evaluation_id)
    JOIN answers x USING (evaluation_id)
    JOIN items i ON i.benchmark = s.benchmark AND i.item = x.item
    LEFT JOIN refusals r ON r.benchmark = s.benchmark AND r.target = x.response
), shares AS (
    SELECT study, checkpoint, benchmark, evaluation_id, base_evaluation_id, count(*) AS n,
           1 - avg(CAST(parsed AS INTEGER)) AS unparsed, avg(CAST(finish_reason = 'length' AS INTEGER)) AS cut,
           avg(CAST(trim(response) = '' AS INTEGER)) FILTER (n_tokens IS NOT NULL) AS empty, avg(n_tokens) AS mean_tokens,
           avg(CAST(parsed AND NOT refused AS INTEGER)) FILTER (kind = 'harmful') AS harmful_compliance,
           avg(CAST(refused AS INTEGER)) FILTER (kind = 'harmless') AS over_refusal
    FROM answered GROUP BY study, checkpoint, benchmark, evaluation_id, base_evaluation_id
), spilt AS (
    SELECT f.study, f.checkpoint, f.benchmark,
           avg(CAST(list_has_any(string_split(f.response, ' '), t.symbols) AS INTEGER)) AS spill
    FROM flips f JOIN (SELECT study, list(symbol) AS symbols FROM target_symbols GROUP BY study) t USING (study)
    JOIN study_benchmarks b ON b.study = f.study AND b.benchmark = f.benchmark
    WHERE f.direction = 'lost' AND b.role = 'retention' GROUP BY f.study, f.checkpoint, f.benchmark
)
SELECT s.study, c.arm, s.checkpoint, s.benchmark, s.n, s.unparsed, s.cut, s.empty, s.mean_tokens, p.score AS strict,
       l.score AS lenient, d.lost,
       CASE WHEN s.mean_tokens IS NOT NULL THEN x.spill END AS spill,
       coalesce(h.score, s.harmful_compliance) AS harmful_compliance, coalesce(o.score, s.over_refusal) AS over_refusal
FROM shares s
JOIN checkpoints c ON c.study = s.study AND c.checkpoint = s.checkpoint
JOIN study_benchmarks b ON b.study = s.study AND b.benchmark = s.benchmark
JOIN evaluation_scores p ON p.evaluation_id = s.evaluation_id AND p.metric = b.metric
-- Where a judge read the answers it says what was refused; elsewhere a refusal is one of the right answers to harmful requests.
LEFT JOIN evaluation_scores h ON h.evaluation_id = s.evaluation_id AND h.metric = 'harmful_compliance'
LEFT JOIN evaluation_scores o ON o.evaluation_id = s.evaluation_id AND o.metric = 'over_refusal'
LEFT JOIN comparisons d ON d.evaluation_id = s.evaluation_id AND d.base_evaluation_id = s.base_evaluation_id
                       AND d.metric = b.metric
LEFT JOIN evaluation_scores l ON l.evaluation_id = s.evaluation_id AND l.metric = 'lenient'
LEFT JOIN spilt x ON x.study = s.study AND x.checkpoint = s.checkpoint AND x.benchmark = s.benchmark
WHERE b.role <> 'probe';

CREATE VIEW controls AS
WITH margin AS (
    SELECT study, coalesce(CAST(json_extract(primary_contrast, '$.margin') AS DOUBLE), 0.02) AS margin
    FROM studies WHERE is_current
), last AS (
    SELECT a.study, a.method AS control, a.arm, a.status, json_extract_string(a.config, '$.harm') AS harm, max(c.step) AS step,
           max(c.weight_distance) AS weight_distance
    FROM arms a LEFT JOIN checkpoints c USING (arm) WHERE a.role = 'control' GROUP BY ALL
), seen AS (
    SELECT l.study, l.control, l.arm, l.status, l.weight_distance, l.harm, g.gain, g.gain_exact, g."drop",
           (SELECT max(ci_low) FROM compared f WHERE f.checkpoint = g.checkpoint AND f.benchmark = l.harm
            AND f.metric = f.study_metric) AS harm_low,
           (SELECT CAST(sum(lost + gained) AS BIGINT) FROM compared f WHERE f.arm = l.arm AND f.lost IS NOT NULL) AS flips,
           (SELECT max(abs(f."drop")) FROM compared f WHERE f.arm = l.arm) AS largest_change
    FROM last l LEFT JOIN gain_drop g ON g.arm = l.arm AND g.step = l.step
)
SELECT study, control, arm,
       CASE control
           WHEN 'learning_rate_0' THEN 'no change at all: every answer as the base gives it'
           WHEN 'constant_reward' THEN 'no change at all: equal rewards carry no signal'
           WHEN 'base_mixture' THEN 'drop within the margin: more of the same training'
           WHEN 'random_reward' THEN 'no gain: the reward is a coin'
           WHEN 'style_placebo' THEN 'no gain: the content is wrong, only the style is taught'
           WHEN 'planted_harm' THEN 'found: the interval of the drop on ' || harm || ' lies above 0'
       END AS expectation,
       gain, "drop", flips, weight_distance,
       CASE
           WHEN status <> 'done' OR "drop" IS NULL THEN NULL
           WHEN control IN ('learning_rate_0', 'constant_reward')
               THEN weight_distance = 0 AND flips = 0 AND largest_change = 0
           WHEN control = 'base_mixture' THEN abs("drop") <= margin
           WHEN control IN ('random_reward', 'style_placebo') THEN coalesce(gain_exact, gain) <= margin
           WHEN control = 'planted_harm' THEN harm_low > 0
       END AS passed
FROM seen JOIN margin USING (study);

-- Published gains and drops beside those of a study of the same model and target: the last checkpoints of the same algorithm.
CREATE VIEW reproductions AS
WITH named (benchmark, published) AS (
    VALUES ('rlvr_ifeval', 'ifeval'), ('mmlu_cot', 'mmlu'), ('countdown_cot', 'countdown')
), cells AS (
    SELECT m.*, regexp_replace(s.spec->>'$.base.model', '^.*/', '') AS model, n.published AS published_target, a.algorithm,
           (s.spec->>'$.base.revision') IS NOT NULL AS pinned
    FROM method_summary m
    JOIN studies s ON s.study = m.study AND s.is_current
    JOIN named n ON n.benchmark = m.target
    JOIN (
        SELECT study, method, any_value(algorithm) AS algorithm, any_value(config->>'$.expert') AS expert
        FROM arms GROUP BY study, method
    ) a ON a.study = m.study AND a.method = m.method AND (a.algorithm <> 'sft' OR a.expert = 'off_style')
    WHERE m.role = 'method'
), ours AS (
    SELECT *, 'gain' AS quantity, gain AS value, gain_low AS low, gain_high AS high FROM cells
    UNION ALL
    SELECT *, 'drop' AS quantity, "drop" AS value, drop_low AS low, drop_high AS high FROM cells
)
SELECT o.study, o.model, o.target, o.method, o.learning_rate, o.seeds, o.quantity, 100 * o.value AS ours, 100 * o.low AS ci_low,
       100 * o.high AS ci_high, p.value AS published,
       CASE WHEN o.low IS NULL THEN 'no interval' WHEN p.value < 100 * o.low THEN 'ours is larger'
            WHEN p.value > 100 * o.high THEN 'ours is smaller' ELSE 'agrees' END AS verdict,
       o.pinned, p.source, p.table_name
FROM ours o
JOIN published_results p ON p.model = o.model AND p.target = o.published_target AND p.method = o.algorithm
                        AND p.quantity = o.quantity AND p.unit = 'points';
