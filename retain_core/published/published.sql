-- The table is filled from results.csv; the views derive what the papers leave to the reader.

CREATE TABLE published_results (
    source VARCHAR, table_name VARCHAR, model VARCHAR, target VARCHAR, method VARCHAR, quantity VARCHAR, value DOUBLE,
    unit VARCHAR, status VARCHAR, note VARCHAR
);

-- Drop against KL over the published cells that have both: all together, and within one target, model or method.
CREATE VIEW published_correlations AS
WITH cells AS (
    SELECT source, model, target, method, max(value) FILTER (quantity = 'drop') AS "drop",
           max(value) FILTER (quantity = 'kl_forward') AS kl
    FROM published_results
    GROUP BY source, table_name, model, target, method
    HAVING "drop" IS NOT NULL AND kl IS NOT NULL
)
SELECT source,
       CASE WHEN grouping(target) = 0 THEN 'target' WHEN grouping(model) = 0 THEN 'model'
            WHEN grouping(method) = 0 THEN 'method' ELSE 'all' END AS group_by,
       coalesce(target, model, method, 'all') AS level,
       count(*) AS n, round(corr("drop", kl), 10) AS pearson, round(corr("drop", ln(kl)), 10) AS pearson_log_kl
FROM cells
GROUP BY GROUPING SETS ((source), (source, target), (source, model), (source, method));

-- Method a minus method b, for every two methods of one published table on the same model and target.
CREATE VIEW published_gaps AS
WITH cells AS (
    SELECT source, table_name, model, target, method, max(value) FILTER (quantity = 'gain') AS gain,
           max(value) FILTER (quantity = 'drop') AS "drop"
    FROM published_results
    GROUP BY source, table_name, model, target, method
    HAVING "drop" IS NOT NULL
)
SELECT a.source, a.table_name, a.model, a.target, a.method AS a, b.method AS b, a.gain - b.gain AS gain_gap,
       a."drop" - b."drop" AS drop_gap
FROM cells a
JOIN cells b USING (source, table_name, model, target)
WHERE a.method <> b.method;
