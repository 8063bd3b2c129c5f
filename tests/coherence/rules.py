"""The rules of `docs/identity.md`: for each, the code that enforces it, and what replaces that code to leave it out.

Some rules are missing here: where two rules are each enough, leaving one out breaks nothing. The model leaves out both.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. With `instead` in place of `lines`, in the file at `path`, the rule is left out, and `test` fails."""

    path: str
    lines: str
    instead: str
    test: str


SUCCESSION, REGION, DATABASE = "app/coherence/succession.py", "app/caching/region.py", "app/database.py"
HISTORIES, MEMBERSHIP = "app/coherence/histories.py", "app/coherence/membership.py"
BEAT = "app/caching/scripts/beat.lua"
SENTINEL = "../caching/test_sentinel.py"

RULES = {
    "a connection is not given out when another run was met last": Rule(
        "app/caching/connection.py",
        'is_another_run = self.identity is not None and getattr(connection, "run", None) != self.identity.run',
        "is_another_run = False",
        "test_succession.py::test_a_connection_to_the_former_redis_is_not_used_again",
    ),
    "a connection is not given out when the Sentinels name another server": Rule(
        "app/caching/connection.py",
        "(self.sentinels is not None and self.sentinels.disown(connection))",
        "False",
        f"{SENTINEL}::test_connections_follow_the_sentinels_although_the_former_primary_is_alive_and_answers",
    ),
    "the newest configuration of a Sentinel counts": Rule(
        "app/caching/sentinel.py",
        "max(named, key=lambda each: each.epoch, default=None)",
        "next(iter(named), None)",
        f"{SENTINEL}::test_the_sentinel_with_the_newest_configuration_is_believed",
    ),
    "no connection is made to where a Sentinel led before": Rule(
        "app/caching/sentinel.py",
        "self.named, self.why = None, why",
        "self.why = why",
        f"{SENTINEL}::test_connections_stay_in_use_while_no_sentinel_answers",
    ),
    "a node is believed only about the slots that it holds": Rule(
        "app/caching/cluster/sending.py",
        "if holds.believes(sent.calls[place].slot, holder):",
        "if True:",
        "holders/test_cluster_nodes.py::test_of_two_nodes_that_own_a_slot_only_the_one_that_postgres_names_is_believed",
    ),
    "a node is believed about a slot that it has gained once it was told": Rule(
        "app/caching/cluster/holds.py",
        "return self._holders[slot] is node and slot not in self._gained",
        "return self._holders[slot] is node",
        "../caching/cluster/test_holds.py::"
        "test_a_gained_slot_is_believed_only_once_its_holder_was_told_of_every_change",
    ),
    "who commits makes sure that the node still holds the slot": Rule(
        REGION,
        "if self._settled is not None and not self._values.sure(key, losses):",
        "if False:",
        "../caching/cluster/test_holds.py::"
        "test_a_write_settles_unless_it_is_verified_that_its_node_still_holds_the_slot",
    ),
    "a claim that nobody needs is refuted": Rule(
        "app/coherence/holders/cluster_nodes.py",
        "await epochs.refute(epoch)",
        "return False",
        "holders/test_cluster_nodes.py::"
        "test_a_claim_whose_holder_has_given_the_slot_away_meanwhile_stands_in_nobodys_way",
    ),
    "values belong to an epoch": Rule(
        "app/caching/stamp.py",
        "whole.update(str(life).encode())",
        "pass",
        "test_histories.py::test_rows_that_a_promoted_standby_lacks_are_no_longer_read",
    ),
    "a claim waits": Rule(
        "app/coherence/candidacy.py",
        "return self.claim.stood(SETTLED)",
        "return True",
        "test_succession.py::test_trust_in_one_redis_has_ended_when_the_epoch_of_another_begins",
    ),
    "a member refutes, or gets no trust": Rule(
        SUCCESSION,
        "await self._epochs.refute(epoch)\n",
        "return look\n",
        "test_succession.py::test_only_one_of_two_redises_is_believed_and_instances_on_the_other_bypass_it",
    ),
    "to refute and to begin change the same row": Rule(
        "app/coherence/epochs.py",
        "WHERE n = :n AND claim = :claim\n    AND n =",
        "WHERE n = :n\n    AND n =",
        "test_succession.py::test_a_refuted_claim_begins_no_epoch",
    ),
    "who is below the timeline that Redis was told of is silent": Rule(
        SUCCESSION,
        "if seen.owner is not None and goes_on(seen.owner.history, look.history):",
        "if False:",
        "test_histories.py::test_an_instance_left_on_a_live_old_primary_answers_nothing_from_it",
    ),
    "a poll is asked where the name leads now": Rule(
        "app/coherence/epochs.py",
        "self._database.reconnect()\n        self._poller.reconnect()\n",
        "self._database.reconnect()\n",
        "test_histories.py::test_an_instance_asks_the_old_primary_nothing_more_once_its_name_leads_to_the_new_one",
    ),
    "a new epoch is polled on new connections": Rule(
        "app/coherence/epochs.py",
        "self._database.believe(timeline, None)\n        self._poller.reconnect()\n",
        "self._database.believe(timeline, None)\n",
        "test_histories.py::test_an_instance_that_finds_the_next_epoch_begun_asks_the_old_primary_nothing_more",
    ),
    "rows are marked only in the newest epoch": Rule(
        "app/coherence/outbox.py",
        "outbox.c.id.in_(undone), EPOCH.element == epoch.token, newest == epoch.n",
        "outbox.c.id.in_(undone)",
        "test_succession.py::test_a_change_told_only_to_a_redis_no_longer_believed_stays_undone",
    ),
    "a write of another epoch is rolled back": Rule(
        DATABASE,
        'if self.epoch is not None and found.get("epoch", self.epoch) != self.epoch:',
        "if False:",
        "test_histories.py::test_a_write_into_a_restored_database_is_refused_before_a_poll_notices_it",
    ),
    "who carries many changes looks again": Rule(
        "app/coherence/delivery.py",
        "if carried or after:",
        "if False:",
        "test_succession.py::test_a_relay_with_many_changes_polls_again_before_each_batch",
    ),
    "a load from before is not kept": Rule(
        REGION,
        "if losses not in (None, self._values.losses(key)):",
        "if False:",
        "test_histories.py::test_an_absence_read_in_the_previous_epoch_is_not_kept_in_the_next_one",
    ),
    "a row is kept only in the epoch in which it was read": Rule(
        REGION,
        "if value is not None and self._identity.epoch is not None and self._epoch_of(value) != self._identity.epoch:",
        "if False:",
        "../caching/test_region.py::test_a_row_of_another_epoch_is_not_kept_and_its_reading_names_no_epoch",
    ),
    "a poll misses its beat": Rule(
        BEAT,
        "if same and not left or not same and",
        "if false and",
        "test_succession.py::test_the_next_poll_detects_a_redis_that_went_back_without_a_restart",
    ),
    "who misses its beat voids the record": Rule(
        BEAT,
        "redis.pcall('HSET', KEYS[1], 'epoch', 'void ' .. ARGV[1])",
        "",
        "test_succession.py::test_a_new_instance_does_not_believe_a_redis_whose_record_another_one_has_voided",
    ),
    "who misses its beat believes no more at once": Rule(
        MEMBERSHIP,
        'cache.trust.lose("it went back to what it was before")',
        "pass",
        "test_succession.py::test_a_redis_that_went_back_is_not_believed_even_before_postgres_answers",
    ),
    "a position below the one told is another history": Rule(
        MEMBERSHIP,
        "return seen.owner is not None and look.position < seen.owner.position",
        "return False",
        "test_histories.py::test_rows_that_a_restored_data_directory_has_lost_are_no_longer_read",
    ),
    "what another deployment has put there is not believed": Rule(
        HISTORIES,
        "if owner.deployment != look.deployment:",
        "if False:",
        "test_succession.py::test_data_of_another_deployment_in_the_same_redis_is_neither_believed_nor_flushed",
    ),
    "what may be another database's is not flushed": Rule(
        HISTORIES,
        "return is_of(owner.history, look.history) or None",
        "return True",
        "test_copies.py",
    ),
    "the token counts only with its history": Rule(
        "app/row_tag.py",
        "WHEN history = concat_ws(",
        "WHEN history IS NOT NULL OR history = concat_ws(",
        "test_histories.py",
    ),
    "what ran on a standby is not answered": Rule(
        DATABASE,
        "if timeline is None:",
        "if False:",
        "test_moved_names.py::test_an_instance_whose_name_leads_to_a_standby_answers_and_fills_nothing_from_it",
    ),
    "what ran at another timeline is not answered": Rule(
        DATABASE,
        "if self.timeline not in (None, timeline):",
        "if False:",
        "test_histories.py::test_a_read_on_a_promoted_standby_is_refused_before_a_poll_notices_it",
    ),
}
