-- Tables. Users query the views of views.sql; docs/warehouse.md documents every column.
-- The hot table is sample_scores: integer keys, a 64-bit item hash and the score, nothing else.

CREATE TABLE schema_version (version INTEGER);

CREATE TABLE studies (
    study VARCHAR, revision INTEGER, spec JSON, spec_hash VARCHAR, primary_contrast JSON,
    declared_at TIMESTAMP, created_at TIMESTAMP, is_current BOOLEAN, looks INTEGER[]
);
CREATE TABLE study_benchmarks (
    study VARCHAR, benchmark VARCHAR, metric VARCHAR, role VARCHAR, near BOOLEAN, choices INTEGER, stage INTEGER
);
CREATE TABLE target_symbols (study VARCHAR, symbol VARCHAR);
CREATE TABLE arms (
    arm VARCHAR, study VARCHAR, base VARCHAR, target VARCHAR, method VARCHAR, algorithm VARCHAR, role VARCHAR,
    config JSON, learning_rate DOUBLE, seed INTEGER, data_seed INTEGER, init_seed INTEGER, sampling_seed INTEGER,
    evaluation_seed INTEGER, status VARCHAR, error VARCHAR, updates INTEGER, sequences BIGINT, unique_prompts BIGINT,
    tokens_trained BIGINT, tokens_generated BIGINT, style_distance DOUBLE, seconds DOUBLE, path_length DOUBLE, weight_distance DOUBLE,
    git_sha VARCHAR, hardware VARCHAR, created_at TIMESTAMP, artifact VARCHAR
);
CREATE TABLE checkpoints (
    checkpoint VARCHAR, arm VARCHAR, study VARCHAR, step INTEGER, alpha DOUBLE, stage INTEGER, kept BOOLEAN,
    weight_distance DOUBLE, path_length DOUBLE
);
CREATE TABLE left_out (study VARCHAR, part VARCHAR, file VARCHAR, line INTEGER, reason VARCHAR);
CREATE TABLE overlap (
    study VARCHAR, target VARCHAR, text VARCHAR, benchmark VARCHAR, n_items INTEGER, n_exact INTEGER, n_near INTEGER
);
CREATE TABLE support (study VARCHAR, base VARCHAR, target VARCHAR, k INTEGER, pass_at_k DOUBLE, items INTEGER);

-- One row per evaluation artifact; several studies can name the same one. A name says which evaluation of the base it is
-- compared with, so that the views need not search for it.
CREATE TABLE stored_evaluations (
    evaluation_id INTEGER, artifact VARCHAR, seal VARCHAR, benchmark VARCHAR, settings JSON, settings_hash VARCHAR,
    n INTEGER, created_at TIMESTAMP
);
CREATE TABLE named_evaluations (
    evaluation VARCHAR, study VARCHAR, checkpoint VARCHAR, evaluation_id INTEGER, base_evaluation_id INTEGER
);
CREATE TABLE floor_evaluations (study VARCHAR, nuisance VARCHAR, evaluation_id INTEGER);
CREATE TABLE metrics (metric_id TINYINT, metric VARCHAR);
CREATE TABLE items (
    benchmark VARCHAR, item BIGINT, doc_id INTEGER, prompt_hash BIGINT, cluster VARCHAR, split VARCHAR, kind VARCHAR,
    prompt VARCHAR, target VARCHAR
);
CREATE TABLE sample_scores (evaluation_id INTEGER, metric_id TINYINT, item BIGINT, repeat SMALLINT, score DOUBLE);
CREATE TABLE answers (
    evaluation_id INTEGER, item BIGINT, repeat SMALLINT, parsed BOOLEAN, finish_reason VARCHAR, n_tokens INTEGER,
    response VARCHAR
);

CREATE TABLE stored_divergences (divergence_id INTEGER, artifact VARCHAR, seal VARCHAR);
CREATE TABLE named_divergences (study VARCHAR, checkpoint VARCHAR, divergence_id INTEGER);
CREATE TABLE divergence_items (
    divergence_id INTEGER, prompts VARCHAR, direction VARCHAR, item BIGINT, nats DOUBLE, tokens INTEGER
);

-- What SQL cannot compute (t quantiles, binomial tails), stored by the loader from the scores above.
CREATE TABLE evaluation_scores (
    evaluation_id INTEGER, metric VARCHAR, n INTEGER, clusters INTEGER, score DOUBLE, stderr DOUBLE
);
CREATE TABLE comparisons (
    evaluation_id INTEGER, base_evaluation_id INTEGER, metric VARCHAR, n INTEGER, clusters INTEGER,
    base_score DOUBLE, score DOUBLE, "drop" DOUBLE, lost INTEGER, gained INTEGER, stderr DOUBLE, df INTEGER,
    ci_low DOUBLE, ci_high DOUBLE, p_value DOUBLE
);

-- Every item that flipped between an evaluation and that of its base, for metrics of 0 and 1, with both answers: about
-- one item in ten. Found by joining 10^8 scores and answers, they would take from 0.1 to 30 seconds, as DuckDB orders the joins.
CREATE TABLE flipped (
    evaluation_id INTEGER, base_evaluation_id INTEGER, metric_id TINYINT, item BIGINT, lost BOOLEAN, base_response VARCHAR,
    response VARCHAR
);

-- The analysis of a study as a whole: intervals over seeds, contrasts, matched points, the KL law.
CREATE TABLE analyses (study VARCHAR, inputs VARCHAR, random_seed BIGINT);
CREATE TABLE intervals (
    study VARCHAR, method VARCHAR, learning_rate DOUBLE, quantity VARCHAR, estimate DOUBLE, low DOUBLE, high DOUBLE,
    stderr DOUBLE, df DOUBLE, seeds INTEGER, n INTEGER, rule VARCHAR
);
CREATE TABLE contrasts (
    study VARCHAR, base VARCHAR, target VARCHAR, a VARCHAR, b VARCHAR, "at" VARCHAR, learning_rate_a DOUBLE,
    learning_rate_b DOUBLE, diff DOUBLE, ci_low DOUBLE, ci_high DOUBLE, level DOUBLE, ci90_low DOUBLE, ci90_high DOUBLE, df DOUBLE,
    stderr DOUBLE, p_value DOUBLE, p_adjusted DOUBLE, verdict VARCHAR, reason VARCHAR, robust BOOLEAN,
    diff_far DOUBLE, "primary" BOOLEAN, look INTEGER, type_s DOUBLE, type_m DOUBLE, rule VARCHAR,
    declared_at TIMESTAMP, declared_before BOOLEAN
);
CREATE TABLE looks (
    study VARCHAR, look INTEGER, seeds INTEGER, planned_looks INTEGER, alpha DOUBLE, overall_error DOUBLE
);
CREATE TABLE contrast_benchmarks (
    study VARCHAR, a VARCHAR, b VARCHAR, "at" VARCHAR, learning_rate_a DOUBLE, learning_rate_b DOUBLE, benchmark VARCHAR,
    near BOOLEAN, diff DOUBLE, ci_low DOUBLE, ci_high DOUBLE, df DOUBLE, p_value DOUBLE, p_holm DOUBLE, diff_without DOUBLE
);
CREATE TABLE matched (
    study VARCHAR, base VARCHAR, target VARCHAR, method VARCHAR, axis VARCHAR, value DOUBLE, learning_rate DOUBLE, step DOUBLE,
    "drop" DOUBLE, ci_low DOUBLE, ci_high DOUBLE, largest DOUBLE, gain_stderr DOUBLE, state VARCHAR, at_edge BOOLEAN,
    learning_rates INTEGER, seeds INTEGER, rule VARCHAR
);
CREATE TABLE pareto (
    study VARCHAR, base VARCHAR, target VARCHAR, method VARCHAR, learning_rate DOUBLE, step INTEGER, gain DOUBLE, "drop" DOUBLE,
    front VARCHAR, rule VARCHAR
);
CREATE TABLE kl_law (
    study VARCHAR, base VARCHAR, target VARCHAR, predictor VARCHAR, r2 DOUBLE, r2_left_out DOUBLE,
    left_out_low DOUBLE, left_out_high DOUBLE, kl_better DOUBLE, beats_trivial BOOLEAN, checkpoints INTEGER, arms INTEGER, methods INTEGER,
    reason VARCHAR
);
CREATE TABLE over_bases (
    family VARCHAR, name VARCHAR, size VARCHAR, target VARCHAR, bases INTEGER, studies VARCHAR[], quantity VARCHAR, a VARCHAR, b VARCHAR, "at" VARCHAR,
    learning_rate DOUBLE, estimate DOUBLE, ci_low DOUBLE, ci_high DOUBLE, df DOUBLE, "primary" BOOLEAN, verdict VARCHAR,
    rule VARCHAR
);

-- What one size said of the next before it was trained, as frozen, and what became of it.
CREATE TABLE stored_predictions (prediction VARCHAR, inputs JSON, meta JSON, pairs JSON, frozen_at TIMESTAMP);
CREATE TABLE predictions (
    prediction VARCHAR, family VARCHAR, target VARCHAR, "at" VARCHAR, size_from VARCHAR, size_to VARCHAR, pairs INTEGER,
    signs_held INTEGER, tau DOUBLE, ci_low DOUBLE, ci_high DOUBLE, frozen_at TIMESTAMP, frozen_before BOOLEAN, rule VARCHAR
);
CREATE TABLE prediction_pairs (
    prediction VARCHAR, family VARCHAR, target VARCHAR, "at" VARCHAR, size_from VARCHAR, size_to VARCHAR, a VARCHAR, b VARCHAR,
    learning_rate DOUBLE, predicted DOUBLE, predicted_rank INTEGER, found DOUBLE, sign_held BOOLEAN
);
CREATE TABLE trend (
    study VARCHAR, night DATE, base VARCHAR, method VARCHAR, learning_rate DOUBLE, gain DOUBLE, "drop" DOUBLE, drop_low DOUBLE,
    drop_high DOUBLE, verdict VARCHAR, model VARCHAR, margin DOUBLE, decision VARCHAR, summary VARCHAR, created_at TIMESTAMP
);
