"""Which addresses a webhook may be sent to, and what the configuration of one may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from durabatch.activities.webhooks.addresses import is_public
from durabatch.activities.webhooks.outcome import Outcome
from durabatch.activities.webhooks.schedule import BREAKER, DAY_MS, after, judged, room, too_old
from durabatch.contract import ConfigurationError
from durabatch.contract.webhooks import EVENTS, Delivery, DeliveryStatus, EndpointState, event_id
from durabatch.workers.settings import Settings
from support.webhooks import SECRET

PUBLIC = ["8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::1"]
PRIVATE = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1"),
    *("168.63.129.16", "::ffff:168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254"),
    *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12:3456::1", "ff02::1", "ff0e::1", "fec0::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::10.0.0.1", "::ffff:0:7f00:1"),
    *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "64:ff9b:1::808:808"),
    *("2002:7f00:1::1", "2002:a00:1::", "2001:0:7f00:1::", "2001:db8::1", "100::1"),
    *("", "localhost", "127.1", "0x7f000001", "2130706433", "1.2.3.4.5", "8.8.8.8:80"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_no_other_address_is_public_however_it_is_written(address: str) -> None:
    assert not is_public(address)


def queued(**fields: int) -> Delivery:
    batch_id = f"batch_{0:011x}{0:013x}"
    given = {"queued_ms": 0, "next_ms": 0, **fields}
    return Delivery(
        id=event_id("search", "default", batch_id, EVENTS[0]),
        endpoint="default",
        type=EVENTS[0],
        batch_id=batch_id,
        created_at=0,
        **given,
    )


@pytest.mark.parametrize("draw", [0.0, 0.5, 1.0])
def test_an_event_is_tried_ever_less_often_and_for_a_day(draw: float) -> None:
    delivery, now, pauses = queued(), 0, []
    while delivery.status is DeliveryStatus.PENDING:
        delivery = after(delivery, Outcome(500, "It answered 500."), now, draw)
        pauses.append(delivery.next_ms - now)
        now = delivery.next_ms
    assert delivery.status is DeliveryStatus.FAILED
    assert pauses[:-1] == sorted(pauses[:-1]) and pauses[0] <= 6_000
    assert DAY_MS * 2 / 3 <= now <= DAY_MS
    assert 10 <= delivery.attempts <= 14
    assert not too_old(delivery, now) and too_old(delivery, DAY_MS + 1)


def test_an_answer_of_2xx_is_the_end_of_it() -> None:
    delivered = after(queued(attempts=3), Outcome(204), 5_000, 0.5)
    assert (delivered.status, delivered.attempts, delivered.delivered_at) == (DeliveryStatus.DELIVERED, 4, 5)


def test_ten_failures_in_a_row_leave_one_attempt_at_a_time_and_one_success_makes_up_for_them() -> None:
    state, failed = EndpointState(), Outcome(None, "It cannot be connected to.")
    for number in range(BREAKER):
        assert (state.probe_ms, room(state, 4)) == (0, min(4, BREAKER - number))
        state = judged(state, failed, 0)
    pauses = []
    for _ in range(12):
        assert room(state, 4) == 1 and not state.disabled
        pauses.append(state.probe_ms)
        state = judged(state, failed, 0)
    assert pauses == sorted(pauses) and (pauses[0], pauses[-1]) == (60_000, 3_600_000)
    assert judged(state, Outcome(200), 0) == EndpointState()
    assert judged(EndpointState(), Outcome(410, "It answered 410."), 0).disabled


WRONG = [
    ('url = "ftp://example.com"\n', "url must be a URL"),
    ('url = "https://"\n', "url must be a URL"),
    ('url = "https://exa mple.com"\n', "url must be a URL"),
    ('url = "https://example.com:99999"\n', "url must be a URL"),
    ('url = "http://example.com"\n', "url must be https"),
    ('url = "https://me:token@example.com"\n', "cannot hold a user name"),
    ('url = "https://example.com"\nevents = ["batch.done"]\n', "takes these only: batch.completed"),
    ('url = "https://example.com"\nname = "A/B"\n', "must begin with a small letter"),
    ('url = "https://example.com"\nsecret = "whsec_token"\n', "secret cannot be given"),
    ('url = "https://example.com"\nurls = "token"\n', "unknown field gateway.webhooks.0.urls"),
]


def load(folder: Path, text: str, secret: str = SECRET) -> Settings:
    config = folder / "durabatch.toml"
    config.write_text(text)
    return Settings.load(config, {"HOOK": secret})


@pytest.mark.parametrize(("lines", "words"), WRONG)
def test_a_webhook_that_is_configured_wrong_is_refused_without_its_address(
    tmp_path: Path, lines: str, words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words) as refused:
        load(tmp_path, f'[[gateway.webhooks]]\nsecret_env = "HOOK"\n{lines}')
    assert "token" not in refused.value.message


@pytest.mark.parametrize("secret", ["token", "whsec_", "whsec_token", f"{SECRET[:-1]}", f"{SECRET}="])
def test_a_secret_that_openais_client_could_not_use_is_refused_without_it(tmp_path: Path, secret: str) -> None:
    with pytest.raises(ConfigurationError, match="variable HOOK must hold whsec_") as refused:
        load(tmp_path, '[[gateway.webhooks]]\nsecret_env = "HOOK"\nurl = "https://example.com"\n', secret)
    assert "token" not in refused.value.message


def test_neither_secret_nor_address_is_shown(tmp_path: Path) -> None:
    settings = load(tmp_path, '[[gateway.webhooks]]\nsecret_env = "HOOK"\nurl = "https://example.com/?t=token"\n')
    (webhook,) = settings.gateway.webhooks
    assert (webhook.tenant, webhook.name, webhook.events) == ("default", "default", EVENTS)
    assert webhook.endpoint().secret == SECRET
    for shown in (str(settings.redacted()), repr(webhook.endpoint())):
        assert "token" not in shown and SECRET not in shown


def test_two_webhooks_of_a_tenant_have_different_names(tmp_path: Path) -> None:
    one = '[[gateway.webhooks]]\nsecret_env = "HOOK"\nurl = "https://example.com"\n'
    with pytest.raises(ConfigurationError, match="two of the same name"):
        load(tmp_path, one * 2)
    assert len(load(tmp_path, f'{one}{one}name = "other"\n{one}tenant = "ads"\n').gateway.webhooks) == 3
