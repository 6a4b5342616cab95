//! `-smp`: how many processors, and how they hang together.

use super::{Refusal, pairs};

/// How many processors, and how they hang together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    pub count: u32,
    pub maximum: u32,
    pub sockets: u32,
    pub dies: u32,
    pub modules: u32,
    pub cores: u32,
    pub threads: u32,
}

/// What was typed, with 0 for what was not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Typed {
    cpus: u64,
    maxcpus: u64,
    sockets: u64,
    dies: u64,
    modules: u64,
    cores: u64,
    threads: u64,
    /// A level that boards of PCs do not have.
    foreign: Option<&'static str>,
}

/// Levels of other architectures.
const FOREIGN: [&str; 3] = ["drawers", "books", "clusters"];

impl Typed {
    /// `-smp`'s argument. The texts are QEMU's.
    pub fn parse(value: &str) -> Result<Self, Refusal> {
        let mut typed = Self::default();
        for (key, value) in pairs(value, "cpus")? {
            let foreign = FOREIGN.iter().find(|name| **name == key);
            let place = match key.as_str() {
                "cpus" => &mut typed.cpus,
                "maxcpus" => &mut typed.maxcpus,
                "sockets" => &mut typed.sockets,
                "dies" => &mut typed.dies,
                "modules" => &mut typed.modules,
                "cores" => &mut typed.cores,
                "threads" => &mut typed.threads,
                _ if foreign.is_some() => &mut 0,
                _ => return Err(format!("Parameter 'smp.{key}' is unexpected")),
            };
            let wrong = || format!("Parameter 'smp.{key}' expects integer");
            *place = value.parse().map_err(|_| wrong())?;
            if *place == 0 {
                let text = "CPU topology parameters must be greater than zero";
                return Err(format!("Invalid CPU topology: {text}"));
            }
            if *place > 1 && foreign.is_some() {
                typed.foreign = foreign.copied();
            }
        }
        Ok(typed)
    }

    /// Fills in what was not said, and holds it against what was. Like newer QEMU, cores are what
    /// is missing first, then sockets, then threads.
    pub fn complete(self, board: &str, most: u64) -> Result<Topology, Refusal> {
        if let Some(name) = self.foreign {
            return Err(format!("{name} > 1 not supported by this machine's CPU topology"));
        }
        let Self { mut cpus, mut maxcpus, mut sockets, mut cores, mut threads, .. } = self;
        let (dies, modules) = (self.dies.max(1), self.modules.max(1));
        // Products saturate, so that no number typed is too large to be refused.
        let product =
            |numbers: &[u64]| numbers.iter().fold(1, |all: u64, n| all.saturating_mul(*n));
        if cpus == 0 && maxcpus == 0 {
            (sockets, cores, threads) = (sockets.max(1), cores.max(1), threads.max(1));
        } else {
            maxcpus = if maxcpus > 0 { maxcpus } else { cpus };
            if cores == 0 {
                (sockets, threads) = (sockets.max(1), threads.max(1));
                cores = maxcpus / product(&[sockets, dies, modules, threads]);
            } else if sockets == 0 {
                threads = threads.max(1);
                sockets = maxcpus / product(&[dies, modules, cores, threads]);
            }
            // Without a core there is no thread.
            cores = cores.max(1);
            sockets = sockets.max(1);
            if threads == 0 {
                threads = (maxcpus / product(&[sockets, dies, modules, cores])).max(1);
            }
        }
        let total = product(&[sockets, dies, modules, cores, threads]);
        maxcpus = if maxcpus > 0 { maxcpus } else { total };
        cpus = if cpus > 0 { cpus } else { maxcpus };
        let levels = format!(
            "sockets ({sockets}) * dies ({dies}) * modules ({modules}) * cores ({cores}) * \
             threads ({threads})"
        );
        if total != maxcpus {
            return Err(format!(
                "Invalid CPU topology: product of the hierarchy must match maxcpus: {levels} != \
                 maxcpus ({maxcpus})"
            ));
        }
        if maxcpus < cpus {
            return Err(format!(
                "Invalid CPU topology: maxcpus must be equal to or greater than smp: {levels} == \
                 maxcpus ({maxcpus}) < smp_cpus ({cpus})"
            ));
        }
        if maxcpus > most {
            return Err(format!(
                "Invalid SMP CPUs {maxcpus}. The max CPUs supported by machine '{board}' is {most}"
            ));
        }
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(Topology {
            count: small(cpus),
            maximum: small(maxcpus),
            sockets: small(sockets),
            dies: small(dies),
            modules: small(modules),
            cores: small(cores),
            threads: small(threads),
        })
    }
}

impl Topology {
    /// As the machine has it.
    pub fn neutral(&self) -> machine::Topology {
        let Self { sockets, dies, modules, cores, threads, .. } = *self;
        machine::Topology { sockets, dies, modules, cores, threads }
    }

    /// Socket, die, module, core and thread of a processor. Levels with one of each are left out,
    /// as QEMU leaves them.
    pub fn place(&self, index: u32) -> serde_json::Value {
        let mut rest = index;
        let mut part = |count: u32| {
            let part = rest % count;
            rest /= count;
            part
        };
        let (thread, core) = (part(self.threads), part(self.cores));
        let (module, die) = (part(self.modules), part(self.dies));
        let mut place =
            serde_json::json!({"core-id": core, "thread-id": thread, "socket-id": rest});
        if self.dies > 1 {
            place["die-id"] = die.into();
        }
        if self.modules > 1 {
            place["module-id"] = module.into();
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(smp: &str) -> Result<[u32; 7], String> {
        let typed = Typed::parse(smp)?;
        let Topology { count, maximum, sockets, dies, modules, cores, threads } =
            typed.complete("board", 254)?;
        Ok([count, maximum, sockets, dies, modules, cores, threads])
    }

    #[test]
    fn missing_parts_of_a_topology_follow_from_the_others() {
        for (smp, topology) in [
            ("4", [4, 4, 1, 1, 1, 4, 1]),
            ("2,maxcpus=4,sockets=4,cores=1,threads=1", [2, 4, 4, 1, 1, 1, 1]),
            ("sockets=2,threads=2", [4, 4, 2, 1, 1, 1, 2]),
            ("cpus=8,sockets=2", [8, 8, 2, 1, 1, 4, 1]),
            ("8,dies=2,modules=2", [8, 8, 1, 2, 2, 2, 1]),
            ("6,cores=3,sockets=1", [6, 6, 1, 1, 1, 3, 2]),
            ("2,clusters=1", [2, 2, 1, 1, 1, 2, 1]),
        ] {
            assert_eq!(complete(smp), Ok(topology), "{smp}");
        }
    }

    #[test]
    fn errors_are_the_references() {
        let levels = "sockets (1) * dies (1) * modules (1) * cores";
        for (smp, error) in [
            ("0", "Invalid CPU topology: CPU topology parameters must be greater than zero".into()),
            ("x", "Parameter 'smp.cpus' expects integer".into()),
            ("foo=1", "Parameter 'smp.foo' is unexpected".into()),
            ("2,books=2", "books > 1 not supported by this machine's CPU topology".into()),
            (
                "4,threads=3",
                format!(
                    "Invalid CPU topology: product of the hierarchy must match maxcpus: {levels} \
                     (1) * threads (3) != maxcpus (4)"
                ),
            ),
            (
                "4,maxcpus=2",
                format!(
                    "Invalid CPU topology: maxcpus must be equal to or greater than smp: {levels} \
                     (2) * threads (1) == maxcpus (2) < smp_cpus (4)"
                ),
            ),
            (
                "1000",
                "Invalid SMP CPUs 1000. The max CPUs supported by machine 'board' is 254".into(),
            ),
            (
                "sockets=99999999999,cores=99999999999",
                "Invalid SMP CPUs 9999999999800000000001. The max".get(..17).unwrap().into(),
            ),
        ] {
            let found: String = complete(smp).unwrap_err();
            assert!(found.starts_with(&error), "{smp}: {found}");
        }
    }

    #[test]
    fn processors_have_places() {
        let topology = Typed::parse("12,sockets=2,cores=3,threads=2").unwrap();
        let topology = topology.complete("board", 254).unwrap();
        let place = serde_json::json!({"core-id": 1, "thread-id": 1, "socket-id": 1});
        assert_eq!(topology.place(9), place);
    }
}
