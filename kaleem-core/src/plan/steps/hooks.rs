//! Where the operator's own programs stand among the steps.

use crate::config::{Hook, HookMoment};
use crate::plan::{PlanKind, Step};

/// The hooks of this moment, as steps. Going back runs none: it must be quick, and must not fail for another reason.
pub(super) fn at(moment: HookMoment, hooks: &[Hook], kind: PlanKind) -> impl Iterator<Item = Step> {
    hooks.iter().filter(move |hook| hook.moment == moment && kind == PlanKind::Deploy).map(|hook| Step::Hook { hook: hook.clone() })
}
