//! Membership of one target group: makes the AWS calls that the state and the wish require.

mod failures;
mod handle;
mod health_schedule;
mod inherited_membership;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use self::handle::NumberedWish;
pub(crate) use self::handle::{MemberHandle, MemberStatus, Wish};
use self::health_schedule::HealthSchedule;
pub(crate) use self::inherited_membership::InheritedMembership;
use super::api::{Api, MemberContext};
use super::probes::ProbeNews;
use super::sentences::{self, Problem};
use crate::aws::{CallError, CallErrorKind};
use crate::backoff::Backoff;
use crate::guard::{TaskFailures, guard};
use crate::identity::Instance;
use crate::lifecycle::{Event, Membership};
use crate::target_group::{Target, TargetGroup, TargetGroupRef, TargetType};
use instance_server::repeat_filter::RepeatFilter;
use instance_server::traffic::Traffic;

/// If this process never saw the instance in the group, a drain waits this long for AWS to say whether it is.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(10);

/// Pauses after failed calls: short at first, and in the end long enough that a thousand agents come back below the
/// account's rate after an outage.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Spreads the first calls of instances that start in the same second.
const FIRST_CALL: Duration = Duration::from_millis(300);
/// Time limit of one tick, far above the time limits of its calls.
const TICK_LIMIT: Duration = Duration::from_secs(300);

impl MemberHandle {
    /// Starts a member; `changed` is notified at each change of its status. `known` is the state before a reload.
    pub(crate) fn start<A: Api>(
        group: TargetGroupRef,
        shared: Arc<MemberContext<A>>,
        traffic: Arc<Traffic>,
        wish: Wish,
        changed: Arc<Notify>,
        known: Option<InheritedMembership>,
    ) -> Self {
        let first = NumberedWish { wish, generation: 0 };
        let (wished, wishes) = watch::channel(first);
        let (publish, status) = watch::channel(MemberStatus {
            arn: known.as_ref().map(|known| known.arn.clone()),
            target: known.as_ref().map(|known| known.target.clone()),
            membership: known.as_ref().map_or(Membership::Unresolved, |known| known.membership.clone()),
            was_healthy: known.as_ref().is_some_and(|known| known.was_healthy),
            since: known.as_ref().map_or_else(SystemTime::now, |known| known.since),
            as_of: known.as_ref().and_then(|known| known.as_of),
            problem: None,
            deregistration_delay: None,
            deregistered: None,
            generation: 0,
            gone: false,
            tried: false,
        });
        let mut member = Member::new(group.clone(), shared, traffic, wishes, publish, changed);
        if let Some(InheritedMembership { arn, target, .. }) = known {
            member.take_over(ResolvedGroup { arn, target, deregistration_delay: None });
        }
        Self { group, status, wished, task: tokio::spawn(member.run(first)) }
    }
}

/// When to tick again; a changed wish comes first.
enum NextTick {
    Now,
    After(Duration),
    /// As `After`, but also on news of the load balancer's health checks, or when an operator asks.
    Watching(Duration),
    WhenWished,
}

struct ResolvedGroup {
    arn: String,
    target: Target,
    deregistration_delay: Option<Duration>,
}

struct Member<A> {
    group: TargetGroupRef,
    shared: Arc<MemberContext<A>>,
    traffic: Arc<Traffic>,
    wishes: watch::Receiver<NumberedWish>,
    instance: watch::Receiver<Option<Instance>>,
    publish: watch::Sender<MemberStatus>,
    changed: Arc<Notify>,
    resolved: Option<ResolvedGroup>,
    /// `resolved` comes from before a reload and may be old.
    taken_over: bool,
    retry: Backoff,
    schedule: HealthSchedule,
    refusals: watch::Receiver<()>,
    questions: watch::Receiver<()>,
    leaving_since: Option<Instant>,
    /// This process registered or tried to, so that the instance may be in the group.
    ever_present: bool,
    /// The instance was in the group, as far as AWS said.
    was_present: bool,
    failures: RepeatFilter<Problem>,
    mistakes: TaskFailures,
    /// Why the last call failed.
    last_refusal: Option<CallErrorKind>,
}

impl<A: Api> Member<A> {
    fn new(
        group: TargetGroupRef,
        shared: Arc<MemberContext<A>>,
        traffic: Arc<Traffic>,
        wishes: watch::Receiver<NumberedWish>,
        publish: watch::Sender<MemberStatus>,
        changed: Arc<Notify>,
    ) -> Self {
        let (refusals, questions) = (traffic.refusals(), shared.questions.clone());
        let leaving_since = (wishes.borrow().wish == Wish::Out).then(Instant::now);
        Self {
            group,
            instance: shared.instance.clone(),
            shared,
            traffic,
            wishes,
            publish,
            changed,
            resolved: None,
            taken_over: false,
            retry: Backoff::new(RETRY.0, RETRY.1),
            schedule: HealthSchedule::new(),
            refusals,
            questions,
            leaving_since,
            ever_present: false,
            was_present: false,
            failures: RepeatFilter::default(),
            mistakes: TaskFailures::default(),
            last_refusal: None,
        }
    }

    /// Continues with the state from before a reload.
    fn take_over(&mut self, resolved: ResolvedGroup) {
        (self.ever_present, self.was_present, self.taken_over) = (true, true, true);
        self.resolved = Some(resolved);
        self.schedule.probes.restart(&self.traffic);
    }

    async fn run(mut self, mut wished: NumberedWish) {
        // Known by now: only another one is news.
        self.instance.mark_unchanged();
        let mut next = match wished.wish {
            Wish::In if !self.taken_over => NextTick::After(FIRST_CALL.mul_f64(fastrand::f64())),
            _ => NextTick::Now,
        };
        loop {
            match next {
                NextTick::Now => {}
                NextTick::After(pause) => tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    // A closed channel means that the registrar has ended, so this task ends too.
                    changed = self.wishes.changed() => if changed.is_err() { return },
                    // The lookup may have failed for lack of the instance's identity.
                    Ok(()) = self.instance.changed(), if self.resolved.is_none() => self.retry.reset(),
                },
                NextTick::Watching(pause) => tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    changed = self.wishes.changed() => if changed.is_err() { return },
                    // Repeated refusals are no news.
                    Ok(()) = self.refusals.changed(), if !self.schedule.probes.are_refused() => {}
                    Ok(()) = self.questions.changed() => {
                        let known = self.publish.borrow().as_of.map(|(_, at)| at);
                        self.schedule.operator_asks(known);
                    }
                },
                NextTick::WhenWished => {
                    if self.wishes.changed().await.is_err() {
                        return;
                    }
                }
            }
            // The wish may have changed before this task first ran.
            let latest = *self.wishes.borrow_and_update();
            if latest != wished {
                wished = latest;
                self.wish_changed(wished);
            }
            next = match guard(TICK_LIMIT, self.tick(wished.wish)).await {
                Ok(next) => next,
                Err(broken) => self.begin_anew(&broken),
            };
        }
    }

    async fn tick(&mut self, wish: Wish) -> NextTick {
        match wish {
            Wish::In => self.tick_in().await,
            Wish::Stay => self.tick_stay().await,
            Wish::Out => self.tick_out().await,
        }
    }

    fn wish_changed(&mut self, NumberedWish { wish, generation }: NumberedWish) {
        self.retry.reset();
        let target_group = self.group.name();
        tracing::debug!(
            target_group,
            "target group {target_group}: wish {wish:?}, state {}",
            self.membership()
        );
        self.schedule.begin_anew();
        self.leaving_since = (wish == Wish::Out).then(Instant::now);
        self.publish.send_modify(|status| {
            status.generation = generation;
            status.gone = false;
            status.tried = false;
        });
    }

    async fn tick_in(&mut self) -> NextTick {
        match self.membership() {
            Membership::Unresolved => self.tick_unresolved().await,
            Membership::Unknown => self.tick_unknown().await,
            Membership::Absent => self.tick_absent().await,
            Membership::Present(_) => self.tick_present().await,
            Membership::Left => {
                self.advance(Event::Rejoin);
                NextTick::Now
            }
        }
    }

    async fn tick_stay(&mut self) -> NextTick {
        match self.membership() {
            Membership::Unresolved if !self.group_is_missing() => self.tick_unresolved().await,
            Membership::Unknown => self.tick_unknown().await,
            Membership::Present(_) => self.tick_present().await,
            Membership::Unresolved | Membership::Absent | Membership::Left => {
                self.gone();
                NextTick::WhenWished
            }
        }
    }

    async fn tick_out(&mut self) -> NextTick {
        match self.membership() {
            Membership::Absent | Membership::Left => {
                self.gone();
                return NextTick::WhenWished;
            }
            Membership::Unresolved if self.group_is_missing() => {
                self.gone();
                return NextTick::WhenWished;
            }
            Membership::Unresolved | Membership::Unknown if !self.ever_present => {
                // The answer may not matter, so the drain stops waiting for it; the member keeps asking.
                if self.leaving_since.is_none_or(|since| since.elapsed() >= LOOKUP_PATIENCE) {
                    self.gone();
                }
            }
            _ => self.publish.send_modify(|status| status.gone = false),
        }
        match self.membership() {
            Membership::Unresolved => self.tick_unresolved().await,
            // If the query fails, deregister anyway: deregistering a target that is not registered does no harm.
            Membership::Unknown => match self.look().await {
                Ok(()) => NextTick::Now,
                Err(_) => self.tick_leaving().await,
            },
            _ => self.tick_leaving().await,
        }
    }

    /// Finds the group and the target to register: instance id or IP address.
    async fn tick_unresolved(&mut self) -> NextTick {
        let identity = self.shared.identity();
        if identity.id.is_none() && identity.private_ip.is_none() {
            return self.failed_with(unknown_target("the instance id"));
        }
        let group = match self.shared.api.find(&self.group).await {
            Ok(group) => group,
            Err(error) => return self.failed(&error).await,
        };
        match self.resolve(group) {
            Ok(()) => {
                self.came_through();
                self.advance(Event::Resolved);
                NextTick::Now
            }
            Err(missing) => self.failed_with(unknown_target(missing)),
        }
    }

    /// Takes over the group's properties and the target to register. Returns what is unknown, if anything.
    fn resolve(&mut self, group: TargetGroup) -> Result<(), &'static str> {
        let identity = self.shared.identity();
        let (id, missing) = match group.target_type {
            TargetType::Instance => (identity.id, "the instance id"),
            TargetType::Ip => (identity.private_ip, "the instance's private IPv4 address"),
        };
        let target = Target { id: id.ok_or(missing)?, port: self.shared.register_port };
        let TargetGroup { arn, check_interval, .. } = group;
        self.schedule.probes.interval = check_interval;
        self.publish.send_modify(|status| {
            status.arn = Some(arn.clone());
            status.target = Some(target.clone());
            status.deregistration_delay = None;
        });
        self.resolved = Some(ResolvedGroup { arn, target, deregistration_delay: None });
        self.taken_over = false;
        Ok(())
    }

    /// After a reload: finds the group again, since it or its settings may have changed.
    async fn find_again(&mut self) -> Result<(), NextTick> {
        let group = match self.shared.api.find(&self.group).await {
            Ok(group) => group,
            Err(error) => return Err(self.failed(&error).await),
        };
        let known = self.resolved.as_ref().map(|known| (known.arn.clone(), known.target.clone()));
        let resolved = self.resolve(group);
        let now = self.resolved.as_ref().map(|now| (now.arn.clone(), now.target.clone()));
        if resolved.is_err() || known != now {
            self.advance(Event::Lost);
            return Err(NextTick::Now);
        }
        Ok(())
    }

    /// Asks for the health before it registers: a restarted agent may be registered already.
    async fn tick_unknown(&mut self) -> NextTick {
        match self.observe().await {
            Ok(()) => NextTick::Now,
            Err(next) => next,
        }
    }

    /// Registers, once the agent's own health path answers.
    async fn tick_absent(&mut self) -> NextTick {
        if !self.shared.notices_are_known() {
            return self.waits_for(Problem {
                what: "the instance's notices are not known yet".to_owned(),
                cure: "the agent registers once the metadata service answers".to_owned(),
            });
        }
        if let Err(what) = self.shared.api.probe_own_health().await {
            let cure = "the agent registers as soon as its own health path answers 200".to_owned();
            return self.waits_for(Problem { what, cure });
        }
        let Some(ResolvedGroup { arn, target, .. }) = &self.resolved else {
            self.advance(Event::Lost);
            return NextTick::Now;
        };
        // Whatever the answer is: from here on the instance may be in the group.
        self.ever_present = true;
        match self.shared.api.register(arn, target).await {
            Ok(()) => {
                self.advance(Event::Registered);
                // Otherwise the first look reads it.
                if !self.schedule.was_held_up() {
                    self.learn_deregistration_delay().await;
                }
                NextTick::After(self.schedule.registered())
            }
            Err(error) => self.failed(&error).await,
        }
    }

    /// Watches the health; [`HealthSchedule`] decides when to ask AWS.
    async fn tick_present(&mut self) -> NextTick {
        let target_group = self.group.name();
        match self.schedule.take_news(&self.traffic) {
            Some(ProbeNews::Overdue) => tracing::info!(
                target_group,
                "target group {target_group}: no health check for three intervals; asking AWS"
            ),
            Some(ProbeNews::Refused) => tracing::info!(
                target_group,
                "target group {target_group}: the agent answered a health check with a status other than 200; asking AWS"
            ),
            Some(ProbeNews::Resumed) | None => {}
        }
        if self.schedule.is_due() {
            if self.taken_over
                && let Err(next) = self.find_again().await
            {
                return next;
            }
            let before = self.membership();
            self.learn_deregistration_delay().await;
            if let Err(next) = self.observe().await {
                return next;
            }
            let after = self.membership();
            let Membership::Present(health) = &after else {
                return NextTick::Now;
            };
            let pause = self.schedule.looked(
                health.receives_traffic(),
                before != after,
                self.shared.reconcile_interval,
            );
            let target_group = self.group.name();
            tracing::debug!(
                target_group,
                "target group {target_group}: {health}; asking again in {:.1} s",
                pause.as_secs_f64()
            );
        }
        NextTick::Watching(self.schedule.pause())
    }

    /// Reads the delay until a read succeeds: the drain's deadline depends on it.
    async fn learn_deregistration_delay(&mut self) {
        let Some(resolved) = &mut self.resolved else { return };
        if resolved.deregistration_delay.is_none()
            && let Some(delay) = self.shared.api.deregistration_delay(&resolved.arn).await
        {
            resolved.deregistration_delay = Some(delay);
            self.publish.send_modify(|status| status.deregistration_delay = Some(delay));
        }
    }

    /// Deregisters, with the port that was registered.
    async fn tick_leaving(&mut self) -> NextTick {
        let Some(ResolvedGroup { arn, target, .. }) = &self.resolved else {
            self.advance(Event::Lost);
            return NextTick::Now;
        };
        // Even if the state is unknown: the load balancer may have been sending requests.
        self.was_present = true;
        match self.shared.api.deregister(arn, target).await {
            Ok(()) => {
                self.advance(Event::Deregistered);
                NextTick::Now
            }
            Err(error) => self.failed(&error).await,
        }
    }

    /// Publishes that nothing is left to deregister, as far as AWS says.
    fn gone(&mut self) {
        self.publish.send_modify(|status| {
            status.gone = true;
            status.tried = true;
        });
        self.changed.notify_one();
    }

    /// Asks AWS for the target's health and applies the answer.
    async fn observe(&mut self) -> Result<(), NextTick> {
        match self.look().await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.failed(&error).await),
        }
    }

    async fn look(&mut self) -> Result<(), CallError> {
        let Some(ResolvedGroup { arn, target, .. }) = &self.resolved else {
            self.advance(Event::Lost);
            return Ok(());
        };
        let health = self.shared.api.health(arn, target).await?;
        self.came_through();
        self.advance(Event::Observed(health));
        Ok(())
    }

    fn membership(&self) -> Membership {
        self.publish.borrow().membership.clone()
    }

    /// Applies an event to the membership, logs a change and publishes it. Together with `begin_anew`, the only place
    /// where the membership changes; [`Membership`] has the states.
    ///
    /// The order of the steps matters:
    ///
    /// 1. Compute the next state. An illegal transition is a bug; the member then forgets the state and asks AWS, which
    ///    is right in every state.
    /// 2. Update the member's own memory. `ever_present` and `was_present` never go back to false: a drain must assume
    ///    that a target group which this process may have joined still sends requests.
    /// 3. End the failures only when the member is where it should be. A successful query in between must not shorten the
    ///    pause before the next refused registration.
    /// 4. Publish `as_of`, but only for events that are answers of AWS.
    /// 5. If the state changed, publish it in one step with the time of deregistration: the registrar counts `drain-quiet`
    ///    from that time, and must never see a member that is out without it.
    fn advance(&mut self, event: Event) {
        let before = self.membership();
        let after = match before.after(event.clone()) {
            Ok(after) => after,
            Err(error) => {
                if self.mistakes.news(&error.to_string()).is_some() {
                    let target_group = self.group.name();
                    tracing::error!(
                        target_group,
                        "target group {target_group}: {error}; asking AWS again; this is a bug, please report it"
                    );
                }
                if self.resolved.is_some() { Membership::Unknown } else { Membership::Unresolved }
            }
        };
        if self.resolved.is_some() && after == Membership::Unresolved {
            self.resolved = None;
        }
        if after.is_present() && !before.is_present() {
            (self.ever_present, self.was_present) = (true, true);
            self.schedule.probes.restart(&self.traffic);
        }
        if after.is_present() || (self.leaving_since.is_some() && after.is_out()) {
            self.recovered();
        }
        if !matches!(event, Event::AnswerLost | Event::Rejoin) {
            self.publish.send_modify(|status| status.as_of = Some((SystemTime::now(), Instant::now())));
            self.changed.notify_one();
        }
        if after == before {
            return;
        }
        let target = self.resolved.as_ref().map(|resolved| &resolved.target);
        let was_healthy = after.is_present() && (self.publish.borrow().was_healthy || after.is_healthy());
        sentences::moved(self.group.name(), target, &before, &after, &event, was_healthy);
        // The time counts from when the agent saw it, which is never too early. An agent that finds itself
        // draining after a restart, or whose deregistration got no answer, was in the group too.
        let draining = matches!(&event, Event::Observed(health) if health.is_draining());
        let left = after.is_out() && (draining || self.was_present);
        self.publish.send_modify(|status| {
            if left {
                status.deregistered = Some(Instant::now());
            }
            status.membership = after;
            status.was_healthy = was_healthy;
            status.since = SystemTime::now();
            status.problem = None;
        });
        self.changed.notify_one();
    }
}

fn unknown_target(missing: &str) -> Problem {
    Problem {
        what: format!("{missing} is unknown: cannot register the instance"),
        cure: "let the instance reach its metadata service, or set instance-id".to_owned(),
    }
}
