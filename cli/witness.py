"""`ledger witness`: sign that a log was seen, at this size and now, after checking that it is the one that was seen before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.errors import DONE, UNVERIFIED, UsageError
from cli.options import PATH, common
from cli.output import Output, many, place
from cli.workspace import Workspace, agent_keys, find, open_here, unlock

if TYPE_CHECKING:
    from ledger.errors import RewrittenError
    from ledger.keys import Signer


@click.command()
@click.argument("target", required=False, type=PATH)
@click.option("--key", metavar="NAME", help="The witness's key. Default: your only one.")
@click.option("--out", type=PATH, metavar="FILE", help="Where the cosigned checkpoint of a FILE goes. Default: standard output.")
@click.option(
    "--request", type=click.IntRange(min=0), metavar="N", help="Sign nothing; print what a witness elsewhere needs that has seen N."
)
@click.option("--take", type=PATH, metavar="FILE", help="Sign nothing; keep a checkpoint that a witness elsewhere cosigned.")
@common
def witness(
    target: Path | None, key: str | None, out: Path | None, request: int | None, take: Path | None, ledger: Path | None, json: bool
) -> int:
    """Cosign the newest checkpoint of a log, with the time; a policy can want that (`checkpoints`).

    TARGET is a ledger, or a FILE with a signed checkpoint, alone or with a proof as --request prints it; without it the ledger here.
    What this key cosigned last is remembered in ~/.local/state/ledger; whatever does not extend it is refused, with both
    checkpoints as evidence and exit code 3.
    """
    from ledger import witness, witness_folder
    from ledger.errors import RewrittenError
    from ledger.memory import Memory
    from store import files

    output = Output(json=json)
    try:
        if target is not None and target.is_file():
            cosigned = witness.Witness(_signer(key), Memory.default()).cosign_note(files.read_small(target, 2**20))
            if out is not None:
                out.write_bytes(cosigned)
            output.show(
                {"note": cosigned.decode(), "file": out}, cosigned.decode().splitlines() if out is None else [f"wrote {place(out)}"]
            )
            return DONE
        workspace = _workspace(target, ledger)
        if take is not None:
            kept = witness_folder.keep(workspace.log, files.read_small(take, 2**20))
            output.show({"kept": kept}, [f"kept in {place(kept)}; receipts and proofs carry it from now on"])
            return DONE
        if request is not None:
            text = witness.request(workspace.log, request).decode()
            output.show({"request": text}, text.splitlines())
            return DONE
        cosigned = witness.Witness(_signer(key), Memory.default()).cosign_log(workspace.log)
        path = witness_folder.keep(workspace.log, cosigned)
    except RewrittenError as error:
        output.show(_evidence(error), _shown(error))
        return UNVERIFIED
    size = many(workspace.log.size, "entry", "entries")
    facts = {"note": cosigned.decode(), "file": path, "origin": workspace.log.origin, "size": workspace.log.size}
    output.show(facts, [f"saw {workspace.log.origin} at {size}, and it extends what was seen before · {place(path)}"])
    return DONE


def _workspace(target: Path | None, ledger: Path | None) -> Workspace:
    if target is None:
        return open_here(ledger)
    folder = find(target)
    if folder is None:
        raise UsageError(f"{target} is no ledger and no file with a checkpoint")
    return Workspace(folder)


def _signer(name: str | None) -> Signer:
    from ledger.key_store import KeyStore
    from ledger.keys import ED25519

    keys = KeyStore.default()
    if name is None:
        own = [own for own, public, _ in keys.list() if public.algorithm == ED25519] or [own for own, _ in agent_keys()]
        if len(own) != 1:
            raise UsageError(f"say which key witnesses: --key NAME; yours are {', '.join(own) or 'none: ledger key new NAME makes one'}")
        name = own[0]
    return unlock(keys, name)


def _evidence(error: RewrittenError) -> dict[str, object]:
    seen, found = (text.decode(errors="replace") for text in (error.accepted, error.found))
    return {"refused": str(error), "evidence": {"seen": seen, "found": found}}


def _shown(error: RewrittenError) -> list[str]:
    lines = [f"REFUSED {error}"]
    for what, text in (("seen before:", error.accepted), ("found now:", error.found)):
        lines += [what, *(f"  {line}" for line in text.decode(errors="replace").splitlines())]
    return lines
