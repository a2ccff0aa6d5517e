-- Tables. Users query the views of views.sql; docs/warehouse.md documents every column.
-- The hot table is sample_scores: integer keys, a 64-bit item hash and the score, nothing else.

CREATE TABLE schema_version (version INTEGER);

CREATE TABLE studies (
    study VARCHAR, revision INTEGER, spec JSON, spec_hash VARCHAR, primary_contrast JSON,
    declared_at TIMESTAMP, created_at TIMESTAMP, is_current BOOLEAN
);
CREATE TABLE study_benchmarks (study VARCHAR, benchmark VARCHAR, metric VARCHAR, role VARCHAR, near BOOLEAN);
CREATE TABLE arms (
    arm VARCHAR, study VARCHAR, base VARCHAR, target VARCHAR, method VARCHAR, algorithm VARCHAR, role VARCHAR,
    config JSON, learning_rate DOUBLE, seed INTEGER, data_seed INTEGER, init_seed INTEGER, sampling_seed INTEGER,
    evaluation_seed INTEGER, status VARCHAR, error VARCHAR, updates INTEGER, sequences BIGINT, unique_prompts BIGINT,
    tokens_trained BIGINT, tokens_generated BIGINT, style_distance DOUBLE, seconds DOUBLE, path_length DOUBLE, weight_distance DOUBLE,
    git_sha VARCHAR, created_at TIMESTAMP, artifact VARCHAR
);
CREATE TABLE checkpoints (
    checkpoint VARCHAR, arm VARCHAR, study VARCHAR, step INTEGER, alpha DOUBLE, stage INTEGER, kept BOOLEAN,
    weight_distance DOUBLE, path_length DOUBLE
);
CREATE TABLE support (study VARCHAR, base VARCHAR, target VARCHAR, k INTEGER, pass_at_k DOUBLE, items INTEGER);

-- One row per evaluation artifact; several studies can name the same one.
CREATE TABLE stored_evaluations (
    evaluation_id INTEGER, artifact VARCHAR, seal VARCHAR, benchmark VARCHAR, settings JSON, settings_hash VARCHAR,
    n INTEGER, created_at TIMESTAMP
);
CREATE TABLE named_evaluations (evaluation VARCHAR, study VARCHAR, checkpoint VARCHAR, evaluation_id INTEGER);
CREATE TABLE metrics (metric_id TINYINT, metric VARCHAR);
CREATE TABLE items (
    benchmark VARCHAR, item BIGINT, doc_id INTEGER, prompt_hash BIGINT, cluster VARCHAR, split VARCHAR,
    prompt VARCHAR, target VARCHAR
);
CREATE TABLE sample_scores (evaluation_id INTEGER, metric_id TINYINT, item BIGINT, repeat SMALLINT, score DOUBLE);
CREATE TABLE answers (
    evaluation_id INTEGER, item BIGINT, repeat SMALLINT, parsed BOOLEAN, finish_reason VARCHAR, n_tokens INTEGER,
    response VARCHAR
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
