"""Explore a warehouse: `marimo edit docs/explore.py`, with RETAIN_HOME where the studies are."""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="retain: what was forgotten?")


@app.cell
def _():
    import altair as alt
    import duckdb
    import marimo as mo

    from retain_core.errors import InputError
    from retain_core.settings import settings
    from retain_core.warehouse.catalogue import question
    from retain_core.warehouse.query import open_warehouse

    def ask(sql, *values):
        """A data frame. The file is open for the question only: an open reader would keep `retain run` from writing."""
        with open_warehouse(settings().warehouse) as con:
            sql, more = question(con, sql)
            return con.execute(sql, [*more, *values]).df()

    return InputError, alt, ask, duckdb, mo, settings


@app.cell
def _(ask, mo, settings):
    studies = ask("SELECT study FROM studies WHERE is_current ORDER BY study")["study"].tolist()
    mo.stop(not studies, mo.md(f"No study was run in `{settings().home}` yet."))
    study = mo.ui.dropdown(studies, value=studies[0], label="study")
    mo.vstack([mo.md(f"# What was forgotten?\n\n`{settings().warehouse}`, read-only. Figures are in points."), study])
    return (study,)


@app.cell
def _(alt, ask, mo, study):
    points = ask(
        """SELECT method, coalesce(learning_rate::VARCHAR, '') AS learning_rate, seed, step, round(100 * gain, 2) AS gain,
                  round(100 * "drop", 2) AS "drop", checkpoint
           FROM gain_drop WHERE study = ? AND role = 'method' AND gain IS NOT NULL AND "drop" IS NOT NULL ORDER BY arm, step""",
        study.value,
    )
    colour = alt.Color("method", scale=alt.Scale(domain=sorted(set(points["method"]))))
    plane = mo.ui.altair_chart(
        alt.Chart(points)
        .mark_point(filled=True, size=60)
        .encode(
            x=alt.X("gain", title="gain on the target (points)"),
            y=alt.Y("drop", title="drop on the rest (points)"),
            color=colour,
            shape=alt.Shape("learning_rate", title="learning rate"),
            tooltip=["checkpoint", "gain", "drop"],
        )
        .properties(width=520, height=340)
    )
    mo.vstack([mo.md("## Gain and drop\n\nEvery trained checkpoint. Draw a box to list those inside."), plane])
    return colour, plane, points


@app.cell
def _(mo, plane, points):
    chosen = plane.value if len(plane.value) else points
    mo.ui.table(chosen, page_size=8, selection=None, label="checkpoints")
    return


@app.cell
def _(alt, ask, colour, mo, study):
    drops = ask(
        """SELECT i.method, coalesce(i.learning_rate::VARCHAR, '') AS learning_rate, i.quantity[6:] AS benchmark,
                  round(100 * estimate, 2) AS "drop", round(100 * low, 2) AS low, round(100 * high, 2) AS high, i.seeds, i.rule
           FROM intervals i JOIN method_summary m ON m.study = i.study AND m.method = i.method
                AND m.learning_rate IS NOT DISTINCT FROM i.learning_rate
           WHERE i.study = ? AND m.role = 'method' AND quantity LIKE 'drop/%' ORDER BY benchmark, i.method, i.learning_rate""",
        study.value,
    )
    _row = alt.Y("row:N", title=None, axis=alt.Axis(labelLimit=220))
    _base = alt.Chart(drops).transform_calculate(row="datum.method + ' ' + datum.learning_rate").encode(y=_row, color=colour)
    _zero = alt.Chart(drops).mark_rule(strokeDash=[3, 3], color="#999").encode(x=alt.datum(0))
    _whiskers = _base.mark_rule().encode(x=alt.X("low", title="drop (points), 95 % interval over seeds"), x2="high")
    _dots = _base.mark_point(filled=True, size=50).encode(x="drop", tooltip=["method", "learning_rate", "drop", "low", "high"])
    _chart = alt.layer(_zero, _whiskers, _dots).properties(width=230).facet("benchmark", columns=2)
    mo.vstack([mo.md("## Drops per benchmark\n\nThe last checkpoints. Right of the line is loss."), _chart])
    return (drops,)


@app.cell
def _(ask, mo, study):
    _arms = ask(
        "SELECT arm FROM arms WHERE study = ? AND role <> 'base' AND status = 'done' ORDER BY role DESC, arm", study.value
    )
    _benchmarks = ask("SELECT benchmark FROM study_benchmarks WHERE study = ? AND role <> 'probe' ORDER BY ALL", study.value)
    arm = mo.ui.dropdown(_arms["arm"].tolist(), value=next(iter(_arms["arm"]), None), label="arm")
    benchmark = mo.ui.dropdown(["all", *_benchmarks["benchmark"]], value="all", label="benchmark")
    direction = mo.ui.radio(["lost", "gained"], value="lost", inline=True)
    mo.vstack(
        [
            mo.md("## Changed answers\n\nItems of the arm's last checkpoint."),
            mo.hstack([arm, benchmark, direction], justify="start", gap=2),
        ]
    )
    return arm, benchmark, direction


@app.cell
def _(arm, ask, benchmark, direction, mo):
    changed = ask(
        """SELECT benchmark, prompt, target, base_response, response FROM flips
           WHERE checkpoint = (SELECT max_by(checkpoint, step) FROM checkpoints WHERE arm = $1 AND alpha IS NULL)
           AND direction = $2 AND $3 IN ('all', benchmark) ORDER BY ALL""",
        arm.value,
        direction.value,
        benchmark.value,
    )
    mo.ui.table(changed, page_size=10, selection=None, label=f"{len(changed)} {direction.value}")
    return (changed,)


@app.cell
def _(mo):
    editor = mo.ui.code_editor("FROM method_summary", language="sql", min_height=60)
    mo.vstack([mo.md("## Ask anything\n\n`.tables` lists the relations, `.schema forgetting` the columns of one."), editor])
    return (editor,)


@app.cell
def _(InputError, ask, duckdb, editor, mo):
    try:
        answer = ask(editor.value)
        _shown = mo.ui.table(answer, page_size=15, selection=None)
    except (InputError, duckdb.Error) as error:
        answer, _shown = None, mo.callout(str(error), kind="warn")
    _shown
    return (answer,)


if __name__ == "__main__":
    app.run()
