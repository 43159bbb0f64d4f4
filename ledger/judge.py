"""Everything that lies somewhere against all alloys there: what each proves, what none names, and what of that is a risk.

The same for a folder that was hashed and for a repository that a Hub lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ledger import oms
from ledger.claims import Claims
from ledger.errors import SignatureError, VerificationError
from ledger.examine import differences, folder_of
from ledger.inventory import SIGNATURE, WEIGHTS, Inventory, Unread, changes, ends, folders, parent, risky, some
from ledger.keys import ECDSA_P256
from ledger.policy import Policy
from ledger.report import Row, printable
from store.digest import Digest
from store.tree import Tree, TreeEntry


def judge(present: Inventory, alloys: Sequence[Claims], *, signed: frozenset[str] = frozenset(), hint: str = "") -> list[Row]:
    """The findings that no single alloy answers for, after each has looked for its own: every file must be named by one of them.

    `present` is without what only carries the proof: alloys, attestations, proofs, signatures. `signed` are paths whose bytes somebody
    trusted signed in some other way, as in `model.sig`. `hint` says what may settle the others.
    """
    covered, settled, differing = set(signed), set[str](), set[str]()
    for one in alloys:
        paths, whole = one.match(present)
        covered |= paths
        settled |= whole
    rows: list[Row] = []
    trees = {digest: listing for one in alloys for digest, listing in one.trees.items()}
    everything = [file.path for file in present.files] + [file.path for file in present.unread]
    open_risks = set(risky([path for path in everything if path not in covered], everything))
    for where, here in folders(present.files):
        if where in settled:
            strange = {path: file for path, file in here.items() if where + path in open_risks - differing}
            found, judged = changed(where, here, strange, trees.values(), unread=present.unread)
            rows += found
            differing |= judged
        elif any(where + path not in covered for path in here):
            found = differences(Tree.of(here.values()), trees.values(), where, unread=present.unread)
            rows += found
            differing |= {where + path for path in here} if found else set()
    content = {digest for one in alloys for digest in one.content}
    pieces = {file.digest: listing for listing in trees.values() for file in listing.entries if ends(file.path, WEIGHTS)}
    loose = [file for file in present.files if file.path not in covered | differing]
    dark = [file for file in present.unread if file.path not in covered]
    dangers = set(risky([file.path for file in loose] + [file.path for file in dark], everything))
    vouched = any(one.counts or one.vouched for one in alloys)
    release = next((one.vouched for one in alloys if one.closes(present)), "")
    if not vouched and dangers:
        text = f"no trusted statement names {some(sorted(dangers))}; a model may be loaded from there"
        rows.append(Row("unverified", text, "Trust who signed it, or take the model from where somebody trusted published it"))
    for file in loose if vouched else ():
        if file.path not in dangers:
            continue
        text = f"{file.path}, {file.size:,} bytes, is named by no trusted statement ({file.digest}); a model may be loaded from it"
        if release and file.digest in content:
            text = f"{file.path}, {file.size:,} bytes, is attested and not in the list of {release}; a model may be loaded from it"
        elif file.digest in pieces:
            text = f"{file.path}, {file.size:,} bytes, is a piece of {folder_of(pieces[file.digest])}, which is not here as it was made"
        rows.append(Row("failed", text, "Take it from where it was published, or delete it"))
    sizes = {file.size for listing in trees.values() for file in listing.entries} | {
        one.size for alloy in alloys for one in alloy.listed.values()
    }
    open_: list[str] = []
    for dim in dark if vouched else ():
        if dim.path in dangers and release:  # its size is whatever its maker liked
            text = f"{dim.path}, {dim.size:,} bytes, is not in the list of {release}; it can change a model"
            rows.append(Row("failed", text, "Take the repository at an older revision, or ask its owner"))
        elif dim.path in dangers and dim.size not in sizes and None not in sizes:
            text = f"{dim.path}, {dim.size:,} bytes, is named by no trusted statement, nor is any file of that size; it can change a model"
            rows.append(Row("failed", text, "Take the repository at an older revision, or ask its owner"))
        elif dim.path in dangers:
            open_.append(dim.path)
    if open_:
        text = f"{some(open_)}: only a git id of it is listed, and none is attested; it may change what is loaded"
        rows.append(Row("unverified", text, "--full reads it"))
    others = [file.path for file in loose if file.path not in dangers and file.digest not in content]
    others += [file.path for file in dark if file.path not in dangers]
    if others:
        rows.append(Row("unverified", f"{some(sorted(others))}: named by no attestation", hint))
    return rows


def changed(
    where: str, here: Mapping[str, TreeEntry], strange: Mapping[str, TreeEntry], recorded: Iterable[Tree], *, unread: Sequence[Unread] = ()
) -> tuple[list[Row], set[str]]:
    """What makes a folder differ from the recorded one that it nearly is, though a smaller one, like a tokenizer, is in it as a whole.

    Without this a model of which one shard was changed would be so many strange files beside a good tokenizer.

    Args:
        where: the folder's path with a slash at the end, or "".
        here: what is in it, by path from there.
        strange: those of `here` that nothing explains and that can change a model.
        recorded: the folders that are attested.
        unread: what lies there too, with paths from the top.

    Returns:
        The findings, and the whole paths of the files that need no other; nothing where `strange` is not of a folder that is nearly here.
    """
    nearest = max(recorded, key=lambda one: sum(here.get(file.path) == file for file in one.entries), default=None)
    if nearest is None or not strange:
        return [], set()
    theirs = {file.path: file for file in nearest.entries}
    same = [file.path for file in nearest.entries if here.get(file.path) == file]
    if len(same) == len(theirs) or not strange.keys() & theirs.keys():
        return [], set()
    mine = {path: file for path, file in here.items() if path in theirs or path in strange}
    rows = differences(Tree.of(mine.values()), [nearest], where, unread=unread)
    if not rows:
        return [], set()
    text = f"{len(same)} other files in {where or './'} are as in {folder_of(nearest)}, which is attested"
    return [*rows, Row("proven", text, aside=True)], {where + path for path in mine}


def document(path: str) -> bool:
    """Whether a file is only for people, a README or a picture: nothing loads it, whatever lies beside it."""
    where = parent(path)
    return not ends(path, WEIGHTS) and not changes(path, {where}, {where})


def model_signature(bundle: bytes, present: Inventory, policy: Policy) -> tuple[list[Row], frozenset[str]]:
    """What a `model.sig` proves of everything that lies there, and the paths that need no other proof then.

    It counts when a P-256 key signed it that the policy trusts for such signatures of any artifact; what its format passes over is among
    the findings.
    """
    opened = _open(bundle, policy)
    if isinstance(opened, Row):
        return [opened], frozenset()
    signed, who = opened
    here = {file.path: file.digest for file in present.files}
    missing = sorted(signed.files.keys() - here.keys()) if not present.complete else []
    if missing:  # a copy of a part of it
        signed = replace(signed, files={path: digest for path, digest in signed.files.items() if path in here})
    over = [path for path in here if path.split("/")[0] in oms.UNSIGNABLE]
    rows = oms.compare(signed, here, passed_over=[SIGNATURE, *over], unread=[file.path for file in present.unread])
    equal = {path for path, digest in here.items() if signed.files.get(path) == digest}
    named = [replace(row, text=row.text.replace(signed.key.short, who)) for row in rows]
    if missing:
        named.append(Row("unverified", f"{len(missing)} files that {who} signed in {SIGNATURE} are not here: {some(missing, 3)}"))
    return named, frozenset(equal | set(over))


def signature_over(bundle: bytes, path: str, digest: Digest, what: str, policy: Policy) -> Row:
    """What a `model.sig` says of one file, whatever else it is over.

    Args:
        bundle: the signature.
        path: of the file, from the folder of the signature.
        digest: of its bytes, hashed here and now.
        what: the file, for messages.
        policy: whom to trust.
    """
    opened = _open(bundle, policy)
    if isinstance(opened, Row):
        return opened
    signed, who = opened
    if path not in signed.files:
        return Row("unverified", f"{what} is not among the {len(signed.files)} files that {who} signed in {SIGNATURE}")
    if signed.files[path] != digest:
        text = f"{what} has {digest}; {who} signed {path} with {signed.files[path]} in {SIGNATURE}"
        return Row("failed", text, "Take both again from where they were published")
    many = f"the {len(signed.files)} files of {printable(signed.name, 80)}"
    return Row("proven", f"{what} is one of {many} that {who} signed in {SIGNATURE} ({digest})")


def _open(bundle: bytes, policy: Policy) -> tuple[oms.Signed, str] | Row:
    """What somebody trusted signed in a `model.sig`, and the name of the key; or why it counts for nothing."""
    keys = {key: name for name, key in policy.speakers(oms.PREDICATE_TYPE).items() if key.algorithm == ECDSA_P256}
    hint = f"If you trust its P-256 key: ledger key trust NAME KEY, or a rule of {policy.source} with predicates [{oms.PREDICATE_TYPE}]"
    if not keys:
        return Row("unverified", f"{SIGNATURE}, the signature over all files: {policy.source} trusts no P-256 key for it", hint)
    try:
        signed = oms.verify(bundle, keys)
    except SignatureError as error:
        return Row("unverified", f"{SIGNATURE} counts for nothing here: {error}", hint)
    except VerificationError as error:
        return Row("failed", f"{SIGNATURE}: {error}", "Take it again from where it was published")
    return signed, next(name for key, name in keys.items() if key == signed.key)
