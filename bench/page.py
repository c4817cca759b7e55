"""`make bench-page`: docs/performance.md and its charts, from the JSON that the benchmarks wrote.

Nothing of it is typed: a part that was not measured is missing from the page.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import charts
import fleet
import tasks

HERE = Path(__file__).resolve().parent
RESULTS, DOCS = HERE / "results", HERE.parent / "docs"
Lines = list[str]
Found = dict[str, Any]


def prose(text: str) -> Lines:
    """A paragraph, whatever its line breaks here."""
    return [" ".join(text.split()), ""]


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Lines:
    return [
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(_cell(value) for value in row)} |" for row in rows),
        "",
    ]


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.2f}".rstrip("0").rstrip(".") if value < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def spread(row: Found) -> str:
    by_round = row["ratios_by_round"]
    return f"{min(by_round):.2f} to {max(by_round):.2f}"


def chart(name: str, drawn: str) -> Lines:
    folder = DOCS / "performance"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.svg").write_text(drawn)
    return [f"![{drawn.partition('<title>')[2].partition('</title>')[0]}](performance/{name}.svg)", ""]


def head(figures: Found) -> Lines:
    of = figures["machine"]
    return [
        "# Performance",
        "",
        *prose(f"""
            Written by `make bench-page` from what the benchmarks measured on {of["date"]}: {of["processors"]}
            processors ({of["processor"]}), {of["memory_gb"]} GB, {of["system"]}, Python {of["python"]}, PostgreSQL 18
            with `fsync` and `synchronous_commit` on.
        """),
        *prose("""
            Load generator, Python and PostgreSQL share those processors, so no figure says what the gate could do
            alone. Figures are therefore compared inside one run: **ratio** is bootstraps per second through the served
            API over what `pgbench` reaches with the very same statement on the same database, over as many connections,
            prepared; rounds alternate, and the spread is the lowest and the highest round. Every answer is checked, and
            the rows are counted: none is missing. Nothing is switched off: durable commits, the edge guard, credentials
            checked in the statement, rate limits, metrics.
        """),
    ]


ROW = ("", "per second", "p50 ms", "p99 ms", "p99.9 ms", "pgbench per second", "ratio", "spread")


def row(one: Found) -> list[object]:
    names = ("name", "per_second", "p50_ms", "p99_ms", "p999_ms", "pgbench_per_second", "ratio")
    return [*(one[name] for name in names), spread(one)]


def bootstraps(figures: Found) -> Lines:
    part = figures["bootstrap"]
    shares = ", ".join(f"{name} {share:.0%}" for name, share in part["cpu_shares"].items())
    memory = part["worker_mb"]
    rows = part["rows"]
    drawn = [
        charts.ChartBar(
            item["name"],
            item["ratio"],
            min(item["ratios_by_round"]),
            max(item["ratios_by_round"]),
            says=f"{item['ratio']:.2f} ×",
        )
        for item in [*rows, *(row for row in figures.get("tokens", {}).get("tokens", {}).get("rows", [])[:3])]
    ]
    return [
        "## Durable bootstraps per second",
        "",
        *prose(f"""
            {part["connections"]} connections that stay open, {part["workers"]} workers, {part["rounds"]} rounds of
            {part["seconds"]:g} s (`make bench`). The client sends an Idempotency-Key with every boot, which is a second
            row in the same commit.
        """),
        *table(ROW, [row(item) for item in rows]),
        *chart(
            "bootstraps",
            charts.bars("Bootstraps beside pgbench with the same statement", drawn, mark=1.0, mark_says="pgbench"),
        ),
        *prose(f"""
            As many as are answered is a queue by definition: each of {part["connections"]} connections asks again as
            soon as it is answered, so each waits for the others. Asked for
            {part["paced"]["to_pgbench"]:g} times what pgbench does ({part["paced"]["per_second"]:,} a second, with
            Idempotency-Key, measured from when each was due), the same gate answers in
            {part["paced"]["p50_ms"]:.1f} ms (p50), {part["paced"]["p99_ms"]:.1f} ms (p99) and
            {part["paced"]["p999_ms"]:.1f} ms (p99.9).
        """),
        *prose(f"""
            Of the processors during these rounds: {shares}; *others* is whatever else ran on the machine, and a tenth
            of it is enough to spoil a p99. The load generator alone, against a server that does
            nothing, reaches {part["load_generator_alone_per_second"]:,} per second. A worker holds
            {memory["at_rest"]:.0f} MB at rest, {memory["under_load"]:.0f} MB under load, {memory["after"]:.0f} MB
            afterwards.
        """),
    ]


def identity_section(figures: Found) -> Lines:
    part = figures["tokens"]
    lines = [
        "## Who is it",
        "",
        *prose(f"""
            The same without Idempotency-Key, {part["rounds"]} rounds of {part["seconds"]:g} s. A new token's signature
            is verified; a seen one is remembered until it expires, and is checked against the database in every
            statement.
        """),
        *table(ROW, [row(item) for item in part["tokens"]["rows"]]),
    ]
    if "junk" in part:
        junk, keys = part["junk"], part["api_keys"]
        few, many = (key for key in keys if key != "many_to_few")
        lines += [
            *prose(f"""
                Beside as many connections of junk (right but for the signature; {junk["junk_refused_per_second"]:,}
                refused per second), good tokens keep {junk["kept"]:.0%} of their rate, and
                {junk["kept_per_cpu_of_the_gate"]:.0%} per processor second of the gate. With {int(many):,} API keys
                published instead of {few}, good keys keep {keys["many_to_few"]:.0%}; refusing a key costs
                {keys[many]["junk_cpu_microseconds"]:.0f} µs.
            """),
        ]
    return lines


def matrix(figures: Found) -> Lines:
    rows = figures["rows"]
    columns = ("kind", "connections", "keep_alive", "workers", "per_second", "ratio", "lowest", "highest")
    columns = (*columns, "p50_ms", "p99_ms", "p999_ms", "late")
    late = sum(row["late"] for row in rows)
    return [
        "## Every way to boot",
        "",
        f"`make bench FULL=1`: {len(figures['rounds'])} rounds, {figures['seconds']} s per cell and round, all with an "
        "Idempotency-Key. pgbench with the same statement: "
        + ", ".join(f"{rate:,} per second over {many}" for many, rate in figures["pgbench"].items())
        + f" connections. Without keep-alive every boot opens a connection. *late*: answers 503 at the deadline "
        f"({late:,} of all).",
        "",
        *table([name.replace("_", " ") for name in columns], [[row[name] for name in columns] for row in rows]),
    ]


def beside(figures: Found) -> Lines:
    part = figures["beside"]
    columns = ("name", "per_second", "to_bootstraps", "lowest", "highest", "p50_ms", "p99_ms", "late")
    return [
        "## Beside bootstraps",
        "",
        *prose("""
            A bootstrap whose packet is known (304, the row all the same), ready and failed, and administrators who read
            without a pause. *to bootstraps*: relative to bootstraps of the same round. An open page of the console
            fetches itself again once in ten seconds at most; its rounds are longer and have their own bootstraps alone.
        """),
        *table(
            ("", *(name.replace("_", " ") for name in columns[1:])),
            [[row[name] for name in columns] for row in part["rows"]],
        ),
    ]


def applied(figures: Found) -> Lines:
    part = figures["apply"]
    return [
        "## A changed file until it is served",
        "",
        *prose(f"""
            `metagate dev` with {part["apply_bindings"]:,} Bindings. One Binding's file is replaced:
            {part["apply_p50_ms"]:.0f} ms (median of {part["apply_changes"]}), {part["apply_p99_ms"]:.0f} ms (p99) until
            a packet shows it. The Manifest that all of them use: {part["apply_all_p50_ms"]:.0f} ms. In a cluster:
            [operator.md](operator.md).
        """),
    ]


def alternatives(figures: Found) -> Lines:
    rows = figures["rows"]
    drawn = [
        charts.ChartBar(
            row["name"], float(row["per_second"]), ours=row["name"] == "MetaGate", says=f"{row['per_second']:,}"
        )
        for row in rows
    ]
    return [
        "## What one would use instead",
        "",
        *prose(f"""
            The same work (read the configuration, leave a durable record) over 64 connections, {figures["rounds"]}
            rounds of {figures["seconds"]:g} s in turn (`make bench-alternatives`): kube-apiserver with etcd and
            fsync, GET of a ConfigMap with the same packet and POST of an Event, over TLS; and a FastAPI and
            SQLAlchemy service as their tutorials recommend (`bench/plain.py`), with as many workers, without
            idempotency keys.
        """),
        *table(
            (*ROW, "MetaGate is"),
            [
                [*row(item), f"{figures['times'][item['name']]:g} × as fast" if item["name"] != "MetaGate" else ""]
                for item in rows
            ],
        ),
        *chart("alternatives", charts.bars("Configurations read and recorded per second", drawn)),
    ]


def herd(figures: Found) -> Lines:
    names = ("last_answered_s", "half_answered_s", "refused", "retries", "cut_off", "lost")
    return [
        "## A herd",
        "",
        *prose(f"""
            {figures["clients"]:,} clients of {figures["principals"]} principals at the same moment, each once, over a
            connection of its own, with an Idempotency-Key; {figures["rounds"]} rounds (`make bench-herd`). Seconds
            until half of them and the last one are answered; *cold* is the first herd after the workers started.
        """),
        *table(
            ("", *(name.replace("_", " ") for name in names), "by round"),
            [
                [
                    name,
                    *(item[name] for name in names),
                    ", ".join(f"{seconds:.2f}" for seconds in item["last_by_round_s"]),
                ]
                for name, item in figures["herds"].items()
            ],
        ),
    ]


def scale(figures: Found) -> Lines:
    return [
        "## A large world",
        "",
        (f"Each world in a PostgreSQL of its own with 128 MB of buffers, {figures['rounds']} rounds of "
        f"{figures['seconds']:g} s in turn, principals spread over the whole world (`make bench-scale`). *Cost*: of a "
        "bootstrap, relative to the smallest world. Bytes per row include indexes."),
        "",
        *table(
            ("", "per second", "cost", "spread", "p99 ms", "ready s", "worker MB", "GB", "bytes per startup",
             "per idempotency key", "per principal, Binding and subject"),
            [
                [
                    world["name"],
                    world["per_second"],
                    world["cost"],
                    f"{min(world['costs_by_round']):.2f} to {max(world['costs_by_round']):.2f}",
                    world["p99_ms"],
                    world["ready_seconds"],
                    world["worker_mb"],
                    world["bytes_per_row"]["gigabytes"],
                    world["bytes_per_row"]["startup"] or None,
                    world["bytes_per_row"]["idempotency key"] or None,
                    world["bytes_per_row"]["principal, binding, subject"],
                ]
                for world in figures["worlds"]
            ],
        ),
    ]  # fmt: skip


def plan_explain_section(figures: Found) -> Lines:
    return [
        "## Asking about a large world",
        "",
        *prose(f"""
            {figures["bindings"]:,} Bindings of as many Principals in one tenant that share a Manifest, and
            {figures["startups"]:,} startups of three days (`make bench-asking`). `metagate plan` of a change to that
            Manifest, a process from its start to its end: {figures["plan_files_seconds"]:.1f} s against other files,
            {figures["plan_server_seconds"]:.1f} s against the running server, beside it. `explain startup/ID`
            over HTTP: {figures["explain_startup_p50_ms"]:g} ms (p50), {figures["explain_startup_p99_ms"]:g} ms (p99).
        """),
        *prose("The pages of the console over HTTP, signed in, each twelve times:"),
        *table(
            ("", "median ms", "worst ms"),
            [[page["page"], page["median_ms"], page["worst_ms"]] for page in figures["pages"]],
        ),
    ]


def admitting(figures: Found) -> Lines:
    part, goals = figures["beside"], figures["goals"]
    names = {
        "many": f"`POST /v1/evaluate`, {figures['roots']:,} trees",
        "single": "the same, one tree",
        "check": "`POST /v1/check`, which stores nothing",
    }
    reached = [
        (f"{names['many']} ÷ pgbench", part["rows"]["many"], goals["many"], "at least"),
        (f"{names['single']} ÷ pgbench", part["rows"]["single"], goals["single"], "at least"),
        ("p99 on one tree ÷ p99 on many", part["p99"], goals["p99"], "at most"),
    ]
    if (size := figures.get("size")) is not None:
        rows = f"{size['rows_before']:,}"
        reached += [
            (f"cost beside {rows} rows of another tree ÷ beside none", size["unrelated"], goals["size"], "at most"),
            (f"cost in a tree of {rows} ÷ in one of 1,000", size["descendants"], goals["size"], "at most"),
        ]
    moved = part["moved_per_decision"]
    # pgbench's own client is one of the others while it runs.
    others = max(0.0, *(part["cpu_shares"][name]["others"] for name in part["rows"]))
    return [
        "## Admission decisions",
        "",
        *prose(f"""
            InterroGate, measured on {figures["machine"]["date"]}: {figures["connections"]} connections,
            {figures["workers"]} workers, {figures["rounds"]} rounds of {figures["seconds"]:g} s in turn, beside rows
            {figures["short_seconds"]:g} s (`make bench-interrogate`). Each request is a child of an admitted root, is
            admitted and names no target: a receipt, the ledger's task, tally and chain, and the root, the capability
            and the task of the gate in one commit. pgbench writes the same rows of as many trees by one prepared
            statement, without a question: {part["pgbench_per_second"]:,} per second. Whatever else ran on the machine
            took up to {others:.0%} of its processors.
        """),
        *table(
            ("", "per second", "p50 ms", "p99 ms", "÷ pgbench", "spread", "late"),
            [
                [names[name], row["per_second"], row["p50_ms"], row["p99_ms"], row["ratio"], spread(row), row["late"]]
                for name, row in part["rows"].items()
            ],
        ),
        *table(
            ("", "measured", "spread", "goal", "reached"),
            [
                [name, row["ratio"], spread(row), f"{bound} {goal:g}", reach(row["ratio"], bound, goal)]
                for name, row, goal, bound in reached
            ],
        ),
        *prose(f"""
            Processor time of one decision over {figures["roots"]:,} trees:
            {processor_time(figures, "many", "Python"):,.0f} µs of Python and
            {processor_time(figures, "many", "PostgreSQL"):,.0f} µs of PostgreSQL; on one tree
            {processor_time(figures, "single", "Python"):,.0f} and
            {processor_time(figures, "single", "PostgreSQL"):,.0f} µs. pgbench's rows cost PostgreSQL
            {processor_time(figures, "pgbench", "PostgreSQL"):,.0f} µs. On one tree {moved["single"]:g} decisions were
            made again for each that was stored, on many {moved["many"]:g}. That a decision reads at most a dozen rows
            is a test, in a database of any size.
        """),
        *beside_agent(figures),
    ]


def beside_agent(figures: Found) -> Lines:
    """Of `admitting`; nothing where the run left it out."""
    if (part := figures.get("agent")) is None:
        return []
    names = {
        "gate": (
            "InterroGate, `POST /v1/evaluate`",
            "looks up parent and counters itself, and stores the decision before it answers",
        ),
        "bare": ("the agent, without a record", "believes what the caller says of parent and counters; no record"),
        "logged": (
            "the agent, its decision log in the same PostgreSQL",
            "the same; the log is sent within seconds of the answer, and a crash loses what was not sent",
        ),
    }
    return [
        *prose(f"""
            Beside it what people would use instead: the server of Open Policy Agent {part["version"]}, in turn on the
            same machine, deciding the rule of the same policy (`bench/opa/admission.rego`) for as many trees: without a
            record, and with its decision log sent each second to a receiver of forty lines that stores it. The latter
            is {part["logged"]["ratio"]:g} times as fast as InterroGate; neither counts, so neither can hold a limit on
            a tree, a rate or a budget.
        """),
        *table(
            ("", "per second", "p50 ms", "p99 ms", "÷ InterroGate", "what an answer means"),
            [
                [
                    title,
                    part[name]["per_second"],
                    part[name]["p50_ms"],
                    part[name]["p99_ms"],
                    part[name]["ratio"],
                    meaning,
                ]
                for name, (title, meaning) in names.items()
            ],
        ),
    ]


def queueing(figures: Found) -> Lines:
    part, goals = figures["beside"], figures["goals"]
    alone = part["alone_ms"]
    names = {
        "AsyncGate": "AsyncGate, over HTTP",
        "receipts": "the same two receipts by `POST /receipts`",
        "pgbench": "pgbench, the same two functions, one item each",
        "plain queue": "pgbench, two plain queue statements in the shape of pgmq",
        "procrastinate": "procrastinate",
        "pgqueuer": "pgqueuer",
    }
    reached = [
        *((f"pairs ÷ {name}", part["ratios"][name], goals[name], "at least") for name in names if name in goals),
        ("one pair alone, p50 ÷ pgbench's", part["alone"], goals["alone"], "at most"),
    ]
    if (enqueue := figures.get("enqueue")) is not None:
        name = "`POST /tasks/batch` ÷ both receipts by `POST /receipts/batch`"
        reached.append((name, enqueue, goals["enqueue"], "at least"))
    if (size := figures.get("size")) is not None:
        reached.append((f"p99 of a lease among {size['tasks']:,} tasks ÷ 1,000", size, goals["size"], "at most"))
    return [
        "## Tasks and leases",
        "",
        *prose(f"""
            AsyncGate, measured on {figures["machine"]["date"]}: {figures["connections"]} connections,
            {figures["workers"]} workers, {figures["rounds"]} rounds of {figures["seconds"]:g} s in turn
            (`make bench-async`). A pair is a lease and its completion: two requests, two receipts, two commits that
            may be shared. procrastinate and pgqueuer work jobs that do nothing, in two processes of 32 at a time.
        """),
        *table(
            ("", "pairs per second", "AsyncGate ÷", "spread"),
            [
                [
                    text,
                    part["per_second"][name],
                    (of := part["ratios"].get(name, {})).get("ratio"),
                    spread(of) if of else None,
                ]
                for name, text in names.items()
            ],
        ),
        *table(
            ("", "measured", "spread", "goal", "reached"),
            [
                [name, row["ratio"], spread(row), f"{bound} {goal:g}", reach(row["ratio"], bound, goal)]
                for name, row, goal, bound in reached
            ],
        ),
        *prose(f"""
            One pair alone takes {alone["p50"]:g} ms (p50) and {alone["p99"]:g} ms (p99) over HTTP; pgbench's
            {alone["pgbench"]:g} ms, the plain queue's {alone["plain queue"]:g} ms on average.
            {part["late"]} requests were answered with 503.
        """),
        *(enqueue_prose(part, enqueue) if enqueue is not None else []),
        *(processes_prose(figures["processes"]) if "processes" in figures else []),
        *GUARANTEES,
    ]


def depositing(figures: Found) -> Lines:
    files, small, goals = figures["files"], figures["small"], figures["goals"]
    many, one = small["16"], small["1"]
    reached = [
        ("a deposit ÷ `cp`, `sync`, `openssl dgst` of the same file", files["upload"], goals["upload"]),
        ("a whole read ÷ `openssl dgst` of the stored file", files["download"], goals["download"]),
        ("deposits of 4 KiB, 16 connections ÷ a synced file and one receipt", many, goals["small"]),
        ("the same on one connection", one, goals["small"]),
    ]
    if (objects := figures.get("objects")) is not None:
        reached.append(("a deposit in a bucket ÷ obstore alone", objects["s3"], goals["s3"]))
    return [
        "## Artifacts",
        "",
        *prose(f"""
            DepotGate, measured on {figures["machine"]["date"]}: one process, {figures["rounds"]} rounds in turn,
            files of {files["megabytes"]} MiB by curl, one at a time (`make bench-depot`). A deposit is received,
            hashed, written, synced, and has its row and receipt; a read is hashed while it leaves. The bucket is
            versitygw on the same machine.
        """),
        *table(
            ("", "measured", "spread", "goal", "reached"),
            [
                [name, row["ratio"], spread(row), f"at least {goal:g}", reach(row["ratio"], "at least", goal)]
                for name, row, goal in reached
            ],
        ),
        *prose(f"""
            Up {files["up_mb_s"]["depotgate"]:,} MB/s (by hand {files["up_mb_s"]["by hand"]:,}), down
            {files["down_mb_s"]["depotgate"]:,} MB/s (`openssl dgst` {files["down_mb_s"]["openssl"]:,}, `cat`
            {files["down_mb_s"]["cat"]:,}); {many["per_second"]["depotgate"]:,} deposits of 4 KiB a second.
        """),
        *(large_artifacts(figures["large"]) if "large" in figures else []),
    ]


def planning(figures: Found) -> Lines:
    goals, small, large = figures["goals"], figures["small"], figures["large"]
    close, expand = figures["close"], figures["expand"]
    reached = [
        ("200 steps expanded, ms (p50)", expand["p50_ms"], goals["expand_ms"]),
        ("`POST /plans`, 3 steps, ms (p99)", small["direct"]["p99_ms"], goals["small_p99_ms"]),
        ("200 admitted steps through InterroGate, ms (highest)", large["p99_ms"], goals["large_ms"]),
        ("the end of 200 steps, ms (highest)", close["p99_ms"], goals["close_ms"]),
        ("memory of DeleGate, MB", figures["memory"]["rss_mb"], goals["rss_mb"]),
    ]
    return [
        "## Plans",
        "",
        *prose(f"""
            DeleGate, measured on {figures["machine"]["date"]} (`make bench-plans`): one process of each gate and
            PostgreSQL with durable commits on one machine, {small["direct"]["times"]} plans of three steps of each way
            in turn, {large["times"]} of 200 steps in groups of 50, so with 7,500 needs. The load generator is the same
            machine's.
        """),
        *table(
            ("", "measured", "goal", "reached"),
            [[name, f"{value:g}", f"below {goal:g}", reach(value, "at most", goal)] for name, value, goal in reached],
        ),
        *prose(f"""
            A plan of three steps costs {small["ratio"]:g} times the seven receipts that DeleGate posts for it; with
            admissions through InterroGate {small["admitted"]["p50_ms"]:g} ms (p50), without
            {small["direct"]["p50_ms"]:g} ms. 200 admitted steps cost {large["ratio"]:g} times the receipts that
            DeleGate posts for them. An expansion of 200 steps costs {expand["ratio"]:g} times the RFC 8785 form and
            SHA-256 of its {expand["bytes"]:,} bytes. The ledger held {close["receipts_in_the_ledger"]:,} receipts when
            plans were closed (`BENCH_ARGS=--rows=10000000` writes those of other tasks as rows, under the indexes that
            the ledger has).
        """),
    ]


def large_artifacts(part: Found) -> Lines:
    growth, others = part["rss_growth_mib"], part["others_p99_ms"]
    return prose(f"""
        {part["gigabytes"]} GB through one process (`make depot-large`): up {part["up_mb_s"]:,} MB/s, down
        {part["down_mb_s"]:,} MB/s. Its memory grew by {growth["one"]} MiB over the {part["rss_before_mb"]} MB from
        before; with eight uploads at once, then eight downloads, by {growth["eight"]} MiB. Another route answered
        meanwhile with a p99 of {others["one"]:g} ms and {others["eight"]:g} ms (idle {others["idle"]:g} ms), the load
        generator on the same two processors.
    """)


def enqueue_prose(part: Found, enqueue: Found) -> Lines:
    rates = enqueue["per_second"]
    return prose(f"""
        Enqueued per second: {rates["batches"]:,} in batches, {rates["one by one"]:,} one by one, each with its two
        receipts in the same commit; procrastinate {part["per_second"]["procrastinate enqueue"]:,} and pgqueuer
        {part["per_second"]["pgqueuer enqueue"]:,} one by one, without any.
    """)


def processes_prose(part: Found) -> Lines:
    return prose(f"""
        With {part["processes"]} processes of the gate {part["pairs"]:,} pairs were done, and {part["late"]} requests
        were answered otherwise than with 200. From parking to its end a task left {part["receipts_per_task"]:g}
        receipts, and the database made {part["commits_per_task"]:g} commits for each task, everything that polls
        included.
    """)


GUARANTEES = [
    "What happens to a job whose worker is killed in the middle, by the SQL of the releases that were measured:",
    "",
    *table(
        ("", "It is done again", "A worker that was overtaken"),
        [
            [
                "AsyncGate",
                "when its lease has ended (60 s), by whoever asks next; nothing has to run for that",
                "its completion is refused (`LEASE_LOST`): one end a task; the lease's number is a fence outside",
            ],
            [
                "pgmq",
                "when its visibility timeout has ended",
                "deletes or archives the message of the other: neither is told",
            ],
            [
                "procrastinate",
                "when something calls `retry_stalled_jobs`; until then it stays `doing`",
                "finishes the job of the other: a job knows no attempt when it is finished",
            ],
            ["pgqueuer", "when its heartbeat is late (30 s)", "finishes the job of the other, by its id"],
        ],
    ),
    *prose("""
        In all of them a handler may run twice: no queue can take back what a killed process did outside of the
        database. Of AsyncGate that there is one end, whatever is killed, is a test
        (`tests/integration/asyncgate`).
    """),
]


def tool_calls(figures: Found) -> Lines:
    ways, goals = figures["ways"], figures["goals"]
    versions = ways["versions"]
    names = {
        "direct": (f"the upstream itself: MCP SDK {versions['mcp']}, a tool that does nothing", "nothing"),
        "relay": ("a relay of ten lines by the same SDK", "nothing"),
        "fastmcp": (f"the proxy of FastMCP {versions.get('fastmcp', '')}", "nothing, unless a log is turned on"),
        "contextforge": (
            f"ContextForge {versions.get('contextforge', '')}, on SQLite",
            "tool, time, duration and success of each call, written in bulk after the answers; not who called",
        ),
        "without receipts": (
            "the gateway, its database answering at once",
            "nothing: a measurement, no way to run it",
        ),
        "gateway": (
            "the gateway",
            "who called what, decided by which policy, and its outcome: two receipts, durable before the answer",
        ),
    }
    one, many = ways["1"], ways["16"]
    added, with_receipts = one["rows"]["gateway"]["added_p50_ms"], many["with_receipts"]
    goal_of_receipts = goals["with receipts"]
    return [
        "## Calls of tools through the MCP gateway",
        "",
        *prose(f"""
            InterroGate, measured on {figures["machine"]["date"]}: one process of it, {figures["rounds"]} rounds of
            {figures["seconds"]:g} s in turn (`make bench-mcp`). One tool of one MCP server on the same machine, called
            directly and through what can stand before it; raw requests of the revision 2026-07-28, so the client costs
            nothing that counts. *added*: to the direct call of the same round.
        """),
        *(
            line
            for connections, part in (("1", one), ("16", many))
            for line in table(
                (
                    f"{connections} connection{'s' if connections != '1' else ''}",
                    "calls per second",
                    "÷ direct",
                    "p50 ms",
                    "p99 ms",
                    "added p50",
                    "added p99",
                    "what is on record",
                ),
                [
                    [
                        names[name][0],
                        row["per_second"],
                        row["ratio"],
                        row["p50_ms"],
                        row["p99_ms"],
                        row["added_p50_ms"],
                        row["added_p99_ms"],
                        names[name][1],
                    ]
                    for name, row in part["rows"].items()
                ],
            )
        ),
        *table(
            ("", "measured", "spread", "goal", "reached"),
            [
                [
                    "ms that the gateway adds to one client's call, p50",
                    added,
                    None,
                    f"at most {goals['added_ms']:g}",
                    reach(added, "at most", goals["added_ms"]),
                ],
                [
                    "calls per second with receipts ÷ without, 16 connections",
                    with_receipts["ratio"],
                    spread(with_receipts),
                    f"at least {goal_of_receipts:g}",
                    reach(with_receipts["ratio"], "at least", goal_of_receipts),
                ],
            ],
        ),
    ]


def processor_time(figures: Found, name: str, of: str) -> float:
    """Microseconds of processor for each request: shares are of the time, so warming up counts on both sides."""
    part = figures["beside"]
    rate = part["pgbench_per_second"] if name == "pgbench" else part["rows"][name]["per_second"]
    return float(part["cpu_shares"][name][of] * figures["machine"]["processors"] * 1e6 / rate)


def reach(ratio: float, bound: str, goal: float) -> str:
    return "yes" if (ratio >= goal if bound == "at least" else ratio <= goal) else "**no**"


def flame(figures: Found) -> Lines:
    return [
        "## Where a worker's time goes",
        "",
        *prose(f"""
            {figures["samples"]:,} samples of one worker at {figures["per_second"]:,} boots per second, 64 connections
            (`make bench-flame`). Wide is long; what stands on top of something was called by it; below one percent
            nothing is drawn.
        """),
        *chart("flame", charts.flame("A worker under load", figures["stacks"])),
    ]


PARTS: tuple[tuple[str, str, Callable[[Found], Lines]], ...] = (
    ("bench", "bootstrap", bootstraps),
    ("bench", "tokens", identity_section),
    ("matrix", "rows", matrix),
    ("bench", "beside", beside),
    ("bench", "apply", applied),
    ("alternatives", "rows", alternatives),
    ("herd", "herds", herd),
    ("scale", "worlds", scale),
    ("asking", "pages", plan_explain_section),
    ("interrogate", "beside", admitting),
    ("gateways", "ways", tool_calls),
    ("async", "beside", queueing),
    ("depot", "files", depositing),
    ("plans", "small", planning),
    ("flame", "stacks", flame),
)


def measured() -> Found:
    names = (*(name for name, _, _ in PARTS), "regions", "whole")
    return {
        name: json.loads((RESULTS / f"{name}.json").read_text())
        for name in dict.fromkeys(names)
        if (RESULTS / f"{name}.json").exists()
    }


def enough(key: str, of: Found) -> bool:
    """Whether a part was measured, and often enough to be shown."""
    least = {"rounds": 3} if key == "rows" and "rounds" in of and isinstance(of["rounds"], list) else {"worlds": 2}
    return key in of and all(len(of[name]) >= number for name, number in least.items() if name in of)


def crowd(herds: Found, every_way: Found) -> Lines:
    """One more thing that the processors end: what a new connection for every boot costs, without any crowd."""

    def pace(kind: str) -> int:
        rows = [row for row in every_way["rows"] if row["kind"] == kind and not row["keep_alive"]]
        return int(max(row["per_second"] for row in rows))

    kinds = (("API key", "by key"), ("new RS256", "by a new token"))
    least = " and ".join(f"{5_000 / pace(kind):.2f} s {says}" for kind, says in kinds)
    took = [herds["herds"][name]["last_answered_s"] for name in ("API key", "new RS256 token")]
    return prose(f"""
        - **5,000 at once within 1 s, or 1.5 s by new tokens.** With a new connection for every boot, as a herd has it,
        the machine answers {pace("API key"):,} a second by key and {pace("new RS256"):,} by a new token at best
        (*Every way to boot*): 5,000 take {least} without any herd. The herd took {took[0]} and {took[1]} s.
    """)


def page(figures: Found) -> Lines:
    lines = head(figures["bench"])
    for name, key, part in PARTS:
        if enough(key, figures.get(name, {})):
            lines += part(figures[name])
    lines += (HERE / "tried.md").read_text().splitlines()
    return [*lines, *(crowd(figures["herd"], figures["matrix"]) if {"herd", "matrix"} <= set(figures) else [])]


def written(name: str, lines: Lines) -> None:
    (DOCS / name).write_text("\n".join(lines).rstrip() + "\n")
    print(f"written: {DOCS / name}")


def with_sections(shown: Sequence[str], lines: Sequence[str], *, before: str = "") -> Lines:
    """The page as it is, with these sections (each from its `## ` on) in the place of those of the same headings.
    `before`: the heading before which a section goes that the page does not have yet.
    """
    new = {heading: part for heading, part in _by_heading(lines).items() if any(part)}
    old = _by_heading(shown)
    order = list(old)
    for heading in new:
        if heading not in old:
            order.insert(order.index(before) if before in order else len(order), heading)
    sections = {**old, **new}
    return [line for heading in order for line in sections[heading]]


def _by_heading(lines: Sequence[str]) -> dict[str, Lines]:
    sections: dict[str, Lines] = {"": []}
    heading = ""
    for line in lines:
        if line.startswith("## "):
            heading = line
        sections.setdefault(heading, []).append(line)
    for part in sections.values():
        while part and not part[-1]:
            part.pop()
        part.append("")
    return sections


def performance(figures: Found) -> Lines:
    """The whole page, or, without the figures that begin it, the page as it is with the parts that were measured."""
    if "bench" in figures:
        return page(figures)
    shown = (DOCS / "performance.md").read_text().splitlines()
    for name, key, part in PARTS:
        if enough(key, figures.get(name, {})):
            shown = with_sections(shown, part(figures[name]))
    return shown


def scale_page(figures: Found) -> Lines:
    shown = (DOCS / "scale.md").read_text().splitlines()
    if {"regions", "scale", "herd", "bench"} <= set(figures):
        shown = with_sections(shown, fleet.page(figures, (HERE / "fleet.md").read_text()))
    if "whole" in figures:
        whole = tasks.section(figures["whole"], (HERE / "tasks.md").read_text())
        shown = with_sections(shown, whole, before="## Past one primary")
    return shown


if __name__ == "__main__":
    found = measured()
    written("performance.md", performance(found))
    written("scale.md", scale_page(found))
