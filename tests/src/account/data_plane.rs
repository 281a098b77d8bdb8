//! Where real machines serve behind real balancers, these say what has changed and hear how targets do.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use local_cloud::{TargetHealth, TargetState};
use tokio::sync::watch;

use super::Account;
use super::answer::Answer;
use super::balancing::draining_target;
use super::options::Agents;
use super::request::Request;
use super::state::State;
use super::xml::Element;

/// A target: its group's ARN, and the instance's id.
pub type Target = (String, String);

/// What balancers say of their targets, those that are draining among them.
pub type Health = BTreeMap<Target, TargetHealth>;

impl Account {
    /// Counts the calls that may have changed the account.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.front.changes.subscribe()
    }

    /// What `DescribeTargetHealth` says from now on, under [`super::Agents::Real`].
    pub async fn tell_health(&self, health: Health) {
        self.front.state.lock().await.balancing.told = health;
    }

    /// What `GetConsoleOutput` says from now on, by instance, under [`super::Agents::Real`].
    pub async fn tell_consoles(&self, consoles: BTreeMap<String, String>) {
        self.front.state.lock().await.consoles = consoles;
    }
}

impl State {
    /// What an instance has written to its console. moto shows the same of each.
    pub(super) async fn console(&self, request: &Request) -> Answer {
        let answer = self.forward(request).await;
        if !answer.ok() || self.options.agents != Agents::Real {
            return answer;
        }
        let mut document = answer.xml();
        let console = self.consoles.get(request.get("InstanceId")).map_or("", String::as_str);
        document.set(Element::text("output", STANDARD.encode(console)));
        answer.with(&document)
    }

    /// moto's answer with the health that was told. moto calls everything healthy that it knows.
    pub(super) fn told_health(&self, request: &Request, answer: Answer) -> Answer {
        let group = request.get("TargetGroupArn");
        let told = |id: &str| self.balancing.told.get(&(group.to_owned(), id.to_owned()));
        let mut document = answer.xml();
        let list = document.at_mut("DescribeTargetHealthResult/TargetHealthDescriptions");
        let Some(list) = list.map(|list| &mut list.children) else {
            return answer;
        };
        // What was registered, and of the others those that nobody asked about in vain.
        let is_draining = |id: &str| told(id).is_some_and(|health| health.state == TargetState::Draining);
        let registered = |item: &Element| item.say("TargetHealth/State") == "healthy";
        list.retain(|item| registered(item) || !is_draining(item.say("Target/Id")));
        for item in list.iter_mut().filter(|item| registered(item)) {
            let known = told(item.say("Target/Id")).filter(|health| health.state != TargetState::Draining);
            item.set(known.map_or_else(|| element(&just_registered()), element));
        }
        let asked: Vec<&str> = (1..)
            .map_while(|n| request.parameters.get(&format!("Targets.member.{n}.Id")))
            .map(String::as_str)
            .collect();
        let shown: Vec<String> = list.iter().map(|item| item.say("Target/Id").to_owned()).collect();
        for ((of, id), health) in &self.balancing.told {
            let wanted = asked.is_empty() || asked.contains(&id.as_str());
            if of == group && health.state == TargetState::Draining && wanted && !shown.contains(id) {
                list.push(draining_target(id, ""));
            }
        }
        answer.with(&document)
    }
}

fn just_registered() -> TargetHealth {
    TargetHealth {
        state: TargetState::Initial,
        reason: Some("Elb.RegistrationInProgress"),
        description: Some("Target registration is in progress".to_owned()),
    }
}

fn element(health: &TargetHealth) -> Element {
    let mut told = vec![Element::text("State", health.state.to_string())];
    told.extend(health.reason.map(|reason| Element::text("Reason", reason)));
    told.extend(health.description.iter().map(|text| Element::text("Description", text.as_str())));
    Element::of("TargetHealth", told)
}
