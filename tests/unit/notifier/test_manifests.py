"""Runs with manifests: they close when all that is listed has arrived, and what is missing is named everywhere."""

from __future__ import annotations

import hashlib
import json
import time
from datetime import timedelta

import msgspec
import pytest

from fusebus.contracts.messages import MANIFEST_LOOK_SECONDS, manifest_check
from fusebus.contracts.outcomes import Done
from fusebus.ledger import Held, HeldBecause, ManifestFacts, RunState
from fusebus.notifier.listed import MOST_LISTED, Listed, Missing, searched


@pytest.fixture
def listing(world, make):
    """Enters a manifest with these names, or one that is refused with `reason`."""

    def enter(*names: str, upload: str = "m", reason: str = "") -> None:
        data = msgspec.json.encode({"names": names})
        before = world.run if make.run_id in world.ledger.runs_by_id else None
        world.enter(upload)
        if before:
            world.ledger.runs_by_id[make.run_id] = msgspec.structs.replace(before, last_upload_at=world.now)
        facts = ManifestFacts(listed=len(names), names=f"manifest/{upload}", sha256=hashlib.sha256(data).hexdigest())
        if reason:
            facts = ManifestFacts(refused=reason, explanation="It is no list. Upload another.")
        world.results[f"manifest/{upload}"] = data
        row = world.ledger.rows[make.run_id, upload]
        world.ledger.rows[make.run_id, upload] = msgspec.structs.replace(
            row, blob_name=f"site/manifest-{upload}.json", manifest=facts
        )

    return enter


async def look(world, make):
    return await world.take(manifest_check(make.run_id, "northgrid", world.now))


async def complete(world, make):
    world.pass_time(600)
    return await world.take(make.check())


def summary(world, make):
    return json.loads(world.results[f"report/{make.run_id}/summary.json"])


async def test_a_run_closes_at_once_when_all_that_is_listed_has_arrived(world, make, listing):
    world.enter("u1", "u2")
    listing("site/u1.jpg", "site/u2.jpg")
    await world.take(make.analysed("u1"))
    [soon] = (await look(world, make)).publish
    assert (world.run.state, world.run.close_requested_by) == (RunState.CLOSED, "manifest")
    assert (soon.message.manifest, soon.enqueue_at) == (False, world.now + timedelta(seconds=30)), "an ordinary check"
    await world.take(make.rejected("u2"))
    assert world.run.state is RunState.COMPLETE, "a refused file has arrived too"
    assert summary(world, make)["missing"] == []


async def test_until_then_it_is_looked_at_again_each_time_under_another_number(world, make, listing):
    world.enter("u1")
    listing("site/u1.jpg", "site/u2.jpg")
    [again] = (await look(world, make)).publish
    assert world.run.state is RunState.OPEN
    assert again.enqueue_at == world.now + timedelta(seconds=30)
    world.configure(recheck_seconds=0.1)
    [soon] = (await look(world, make)).publish
    assert soon.message.sequence == manifest_check(make.run_id, "northgrid", world.now).sequence + 1
    assert soon.enqueue_at <= world.now + timedelta(seconds=MANIFEST_LOOK_SECONDS)
    world.enter("u2")
    await world.take(soon.message)
    assert world.run.state is RunState.CLOSED
    assert await world.take(soon.message) == Done(), "a closed run is left to its other checks"


async def test_however_many_manifests_ask_for_a_look_they_ask_for_the_same_one(world, make):
    asked = {manifest_check(make.run_id, "northgrid", world.now + timedelta(milliseconds=n)) for n in range(1_000)}
    assert len(asked) <= 2


async def test_two_manifests_close_the_run_only_together(world, make, listing):
    world.enter("u1")
    listing("site/u1.jpg")
    listing("site/u2.jpg", upload="m2")
    await look(world, make)
    assert world.run.state is RunState.OPEN


async def test_manifests_that_list_each_other_have_arrived(world, make, listing):
    world.enter("u1")
    listing("site/u1.jpg", "site/manifest-m2.json", "site/manifest-m3.json")
    await look(world, make)
    assert world.run.state is RunState.OPEN, "those are not there yet"
    listing("site/manifest-m.json", upload="m2")
    listing(upload="m3", reason="manifest_malformed")
    await look(world, make)
    assert world.run.state is RunState.CLOSED


async def test_a_manifest_that_came_in_another_run_is_named_with_it(world, make, listing):
    listing("site/a.jpg", "site/manifest-m.json")
    other = make.run_id.replace("u0u0u0u0", "f0f0f0f0")
    world.enter("b", run=other)
    missing = Listed(missing=(Missing(name="site/manifest-m.json", manifest="site/manifest-n.json"),))
    [found] = (await searched(missing, "northgrid", other, world.ledger)).missing
    assert found.of_run == make.run_id


async def test_a_refused_manifest_closes_nothing_and_is_told(world, make, listing):
    world.enter("u1")
    listing(reason="manifest_malformed")
    assert await look(world, make) == Done()
    assert world.run.state is RunState.OPEN
    await world.take(make.analysed("u1"))
    await complete(world, make)
    assert world.run.state is RunState.COMPLETE
    [told] = summary(world, make)["manifests"]
    assert (told["reason"], told["name"]) == ("manifest_malformed", "site/manifest-m.json")
    mail = world.mailer.sent[0].get_body(("plain",)).get_content()
    assert "manifest-m.json" in mail and "Upload another." in mail
    assert "Upload another." in world.results[f"report/{make.run_id}/index.html"].decode()
    assert summary(world, make)["counts"]["uploads"] == 1


async def test_what_is_missing_is_named_in_summary_report_mail_and_receipt(world, make, listing):
    world.enter("u1", "extra")
    listing("site/u1.jpg", "site/gone.jpg", "site/late.jpg", "site/elsewhere.jpg")
    world.ledger.held = [
        Held(
            upload_id="h",
            supplier="northgrid",
            container="in-northgrid",
            blob_name="site/late.jpg",
            because=HeldBecause.QUOTA,
            held_at=world.now,
        )
    ]
    other = make.run_id.replace("u0u0u0u0", "f0f0f0f0")
    world.enter("elsewhere", run=other)
    await world.take(make.analysed("u1"))
    await world.take(make.analysed("extra"))
    await complete(world, make)
    found = summary(world, make)
    assert [(one["name"], one["of_run"], one["held"]) for one in found["missing"]] == [
        ("site/gone.jpg", "", False),
        ("site/late.jpg", "", True),
        ("site/elsewhere.jpg", other, False),
    ]
    assert found["unlisted"] == ["site/extra.jpg"]
    [mail] = world.mailer.sent
    assert mail["Subject"].endswith("all analysed, 1 missing")
    for part in ("plain", "html"):
        text = mail.get_body((part,)).get_content()
        assert "did not arrive" in text and "gone.jpg" in text
        assert "elsewhere.jpg" in text and other in text
    page = world.results[f"report/{make.run_id}/index.html"].decode()
    assert "gone.jpg" in page and "Arrived, and is not listed" in page
    receipt = json.loads(world.results[f"to-northgrid/runs/{make.run_id}/receipt.json"])
    assert [(one["name"], one["outcome"]) for one in receipt["missing"]] == [
        ("site/gone.jpg", "missing"),
        ("site/late.jpg", "held"),
        ("site/elsewhere.jpg", "in another run"),
    ]
    assert (receipt["counts"]["missing"], receipt["not_listed"]) == (1, ["site/extra.jpg"])


async def test_a_full_list_of_which_all_is_held_blocks_nobody(world):
    names = [f"site/{number}.jpg" for number in range(MOST_LISTED)]
    world.ledger.held = [
        Held(
            upload_id=name,
            supplier="northgrid",
            container="in-northgrid",
            blob_name=name,
            because=HeldBecause.QUOTA,
            held_at=world.now,
        )
        for name in names
    ]
    listed = Listed(missing=tuple(Missing(name=name, manifest="site/manifest.csv") for name in names))
    before = time.process_time()
    found = await searched(listed, "northgrid", "run", world.ledger)
    assert time.process_time() - before < 3, "seconds; while it is counted, nothing else is done"
    assert all(one.held for one in found.missing)


async def test_a_delivery_of_nothing_but_a_manifest_names_all_of_it(world, make, listing):
    listing("site/a.jpg", "site/b.jpg")
    await complete(world, make)
    assert world.run.state is RunState.COMPLETE
    [mail] = world.mailer.sent
    assert mail["Subject"] == "0 photos from northgrid: nothing was uploaded, 2 missing"


async def test_a_list_that_was_altered_or_lost_does_not_stop_the_run(world, make, listing):
    world.enter("u1")
    listing("site/u1.jpg")
    listing("site/u1.jpg", upload="m2")
    world.results["manifest/m"] = b'{"names": ["site/forged.jpg"]}'
    del world.results["manifest/m2"]
    await world.take(make.analysed("u1"))
    await complete(world, make)
    assert {one["reason"] for one in summary(world, make)["manifests"]} == {"manifest_lost"}
    assert summary(world, make)["missing"] == []


async def test_names_that_a_mac_decomposed_are_found(world, make, listing):
    world.enter("u\u0308")
    listing("site/\u00fc.jpg")
    await look(world, make)
    assert world.run.state is RunState.CLOSED


async def test_a_mail_names_so_many_missing_files_and_counts_the_rest(world, make, listing):
    world.enter("u1")
    listing(*[f"site/{number:03}.jpg" for number in range(100)])
    await world.take(make.analysed("u1"))
    await complete(world, make)
    text = world.mailer.sent[0].get_body(("plain",)).get_content()
    assert "site/029.jpg" in text and "site/030.jpg" not in text
    assert "70 more files in the report." in text


async def test_manifests_that_list_too_much_together_are_refused_from_the_first_that_does(world, make, listing):
    world.enter("u1")
    listing(*[f"site/{number}.jpg" for number in range(12_000)])
    world.pass_time(1)
    listing(*[f"site/b{number}.jpg" for number in range(8_001)], upload="m2")
    listing("site/u1.jpg", upload="m3")
    await world.take(make.analysed("u1"))
    await complete(world, make)
    found = summary(world, make)
    assert {one["name"]: one["reason"] for one in found["manifests"]} == {
        "site/manifest-m.json": "",
        "site/manifest-m2.json": "manifest_too_many",
        "site/manifest-m3.json": "",
    }
    assert len(found["missing"]) == 12_000
    page = world.results[f"report/{make.run_id}/index.html"]
    assert page.count(b"did not arrive") in (2_000, 2_001) and b"summary.json" in page
