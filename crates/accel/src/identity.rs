//! What CPUID tells the guest, on every accelerator: a model's features and the topology over what
//! the accelerator itself says.

/// How the processors hang together, from the package inwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Packages.
    pub sockets: u32,
    /// Dies in a package.
    pub dies: u32,
    /// Modules in a die.
    pub modules: u32,
    /// Cores in a module.
    pub cores: u32,
    /// Threads in a core.
    pub threads: u32,
}

/// Bits that hold so many numbers.
fn bits(count: u32) -> u32 {
    count.max(1).next_power_of_two().trailing_zeros()
}

impl Topology {
    /// So many cores in one package.
    #[must_use]
    pub fn of_cores(cores: u32) -> Self {
        Self { sockets: 1, dies: 1, modules: 1, cores, threads: 1 }
    }

    /// Threads, then cores, modules, dies: bits of the APIC's number below each level.
    fn shifts(&self) -> [u32; 4] {
        let core = bits(self.threads);
        let module = core + bits(self.cores);
        let die = module + bits(self.modules);
        [core, module, die, die + bits(self.dies)]
    }

    /// The number of the local APIC of processor `number`: each level has bits of its own.
    #[must_use]
    pub fn apic_id(&self, number: usize) -> u32 {
        let [core, module, die, package] = self.shifts();
        let mut rest = number as u32;
        let mut part = |count: u32| {
            let part = rest % count.max(1);
            rest /= count.max(1);
            part
        };
        let low = part(self.threads) | part(self.cores) << core;
        low | part(self.modules) << module | part(self.dies) << die | rest << package
    }

    /// Threads in a package.
    #[must_use]
    pub fn threads_per_package(&self) -> u32 {
        self.dies * self.modules * self.cores * self.threads
    }

    /// A level as leaves 0xb and 0x1f tell it.
    fn level(&self, wide: bool, index: u32, apic: u32) -> [u32; 4] {
        let [core, module, die, package] = self.shifts();
        let in_core = self.threads;
        let in_module = in_core * self.cores;
        let in_die = in_module * self.modules;
        let all = self.threads_per_package();
        let mut levels = vec![(1, core, in_core)];
        if wide {
            levels.push((2, module, in_module));
            if self.modules > 1 {
                levels.push((3, die, in_die));
            }
            if self.dies > 1 {
                levels.push((5, package, all));
            }
            // The last one reaches to the package.
            if let Some(last) = levels.last_mut() {
                (last.1, last.2) = (package, all);
            }
        } else {
            levels.push((2, package, all));
        }
        match levels.get(index as usize) {
            Some(&(kind, shift, count)) => [shift, count, kind << 8 | index & 0xff, apic],
            None => [0, 0, index & 0xff, apic],
        }
    }
}

/// Bits of a register of CPUID's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// The leaf.
    pub leaf: u32,
    /// The subleaf.
    pub subleaf: u32,
    /// EAX, EBX, ECX, EDX.
    pub register: usize,
    /// The bits that are set.
    pub bits: u32,
}

/// What the processors say of themselves.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The maker, as CPUID spells it; none: the accelerator's.
    pub vendor: Option<[u8; 12]>,
    /// Family, model and stepping; none: the accelerator's.
    pub signature: Option<u32>,
    /// The name; none: the accelerator's.
    pub brand: Option<[u8; 48]>,
    /// The last leaves, basic and extended; none: the accelerator's.
    pub levels: Option<(u32, u32)>,
    /// All words of features. None: the accelerator's.
    pub features: Option<Vec<Features>>,
    /// Who translates, for guests that ask.
    pub hypervisor: Option<[u8; 12]>,
    /// How they hang together.
    pub topology: Topology,
}

const AMD: [u8; 12] = *b"AuthenticAMD";
const HYGON: [u8; 12] = *b"HygonGenuine";

const HYPERVISOR: u32 = 0x4000_0000;
const EXTENDED: u32 = 0x8000_0000;
const XSAVE: u32 = 1 << 26; // leaf 1, ECX
const AVX: u32 = 1 << 28; // leaf 1, ECX
const HAS_THREADS: u32 = 1 << 28; // leaf 1, EDX
const DISTRUSTS_THREADS: u32 = 1 << 1; // leaf 0x80000001, ECX: threads that are cores
const LONG_MODE: u32 = 1 << 29; // leaf 0x80000001, EDX

/// What the accelerator answers by itself.
pub type Native<'a> = &'a dyn Fn(u32, u32) -> [u32; 4];

impl Identity {
    /// All that the accelerator has.
    #[must_use]
    pub fn native(topology: Topology) -> Self {
        Self {
            vendor: None,
            signature: None,
            brand: None,
            levels: None,
            features: None,
            hypervisor: None,
            topology,
        }
    }

    fn is_amd(&self) -> bool {
        self.vendor.is_some_and(|vendor| vendor == AMD || vendor == HYGON)
    }

    /// Registers of features, laid over what stands in the answer.
    fn lay_features(&self, leaf: u32, subleaf: u32, answer: &mut [u32; 4]) {
        let here = |word: &&Features| word.leaf == leaf && word.subleaf == subleaf;
        for word in self.features.iter().flatten().filter(here) {
            answer[word.register] = word.bits;
        }
    }

    fn word(&self, leaf: u32, register: usize, native: Native<'_>) -> u32 {
        let mut answer = native(leaf, 0);
        self.lay_features(leaf, 0, &mut answer);
        answer[register]
    }

    /// EAX to EDX. What changes while the guest runs (OSXSAVE, sizes of saved state) is not in it:
    /// `None` stands for saved state as the accelerator has it.
    #[must_use]
    pub fn answer(
        &self,
        native: Native<'_>,
        number: usize,
        leaf: u32,
        subleaf: u32,
    ) -> Option<[u32; 4]> {
        let native_last = |first| native(first, 0)[0];
        let (last, extended_last) =
            self.levels.unwrap_or_else(|| (native_last(0), native_last(EXTENDED)));
        let leaf = match leaf {
            HYPERVISOR..=0x4fff_ffff => return Some(self.told(leaf, native)),
            0xc000_0000..=0xffff_ffff if self.levels.is_some() => return Some([0; 4]),
            leaf if leaf >= EXTENDED && leaf <= extended_last => leaf,
            leaf if leaf <= last => leaf,
            _ => last, // as Intel's processors do
        };
        let apic = self.topology.apic_id(number);
        let mut answer = match (self.levels, leaf) {
            (_, 0 | 1 | 7 | 0xd | 0x8000_0000..=0x8000_0004) | (None, _) => native(leaf, subleaf),
            (Some(_), _) => self.plain(leaf, subleaf),
        };
        match leaf {
            0 | EXTENDED => {
                answer[0] = if leaf == 0 { last } else { extended_last };
                if let Some(vendor) = self.vendor
                    && (leaf == 0 || self.levels.is_some())
                {
                    (answer[1], answer[3], answer[2]) =
                        (word(&vendor, 0), word(&vendor, 4), word(&vendor, 8));
                }
            }
            1 => self.first(apic, subleaf, &mut answer),
            4 => self.caches(&mut answer),
            7 => self.structured(subleaf, &mut answer),
            0xb => answer = self.topology.level(false, subleaf, apic),
            0x1f => answer = self.topology.level(true, subleaf, apic),
            0xd => return self.saved_state(subleaf, native),
            0x8000_0001 => {
                self.lay_features(leaf, 0, &mut answer);
                answer[0] = self.signature.unwrap_or(answer[0]);
                answer[1] = if self.levels.is_some() { 0 } else { answer[1] };
                if self.is_amd() && self.topology.threads_per_package() > 1 {
                    answer[2] |= DISTRUSTS_THREADS;
                }
            }
            0x8000_0002..=0x8000_0004 => {
                if let Some(brand) = &self.brand {
                    let at = (leaf - 0x8000_0002) as usize * 16;
                    answer = [0, 4, 8, 12].map(|offset| word(brand, at + offset));
                }
            }
            0x8000_0008 => self.sizes(&mut answer, native),
            _ => self.lay_features(leaf, subleaf, &mut answer),
        }
        Some(answer)
    }

    /// Leaves of a named model that are not features: what such processors have in common.
    fn plain(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        const MIB: u32 = 1 << 20;
        // type, level, ways, sets
        let cache = |(kind, level, ways, sets): (u32, u32, u32, u32)| {
            [kind | level << 5 | 1 << 8, (ways - 1) << 22 | 63, sets - 1, 0]
        };
        match leaf {
            2 if !self.is_amd() => [1, 0, 0x4d, 0x002c_307d],
            4 if !self.is_amd() => match subleaf {
                0 => cache((1, 1, 8, 64)),
                1 => cache((2, 1, 8, 64)),
                2 => cache((3, 2, 16, 4096)),
                3 => cache((3, 3, 16, 16 * MIB / 16 / 64)),
                _ => [0; 4],
            },
            0x8000_0005 if self.is_amd() => [0x01ff_01ff, 0x01ff_01ff, 0x4002_0140, 0x4002_0140],
            0x8000_0006 => [0, 0x4200_4200, 0x0200_8140, 0x0080_8140],
            _ => [0; 4],
        }
    }

    /// Hypervisors' leaves.
    fn told(&self, leaf: u32, native: Native<'_>) -> [u32; 4] {
        match (self.hypervisor, leaf - HYPERVISOR) {
            (None, _) => native(leaf, 0),
            (Some(name), 0) => [HYPERVISOR + 1, word(&name, 0), word(&name, 4), word(&name, 8)],
            (Some(_), _) => [0; 4],
        }
    }

    fn first(&self, apic: u32, subleaf: u32, answer: &mut [u32; 4]) {
        _ = subleaf;
        self.lay_features(1, 0, answer);
        answer[0] = self.signature.unwrap_or(answer[0]);
        let threads = self.topology.threads_per_package();
        let shown = if threads > 1 { threads.next_power_of_two().min(255) } else { 0 };
        answer[1] = apic << 24 | shown << 16 | 8 << 8;
        answer[3] &= !HAS_THREADS;
        if threads > 1 {
            answer[3] |= HAS_THREADS;
        }
    }

    /// Who shares a cache, and how many cores there can be in a package.
    fn caches(&self, answer: &mut [u32; 4]) {
        if answer[0] & 0x1f == 0 {
            return;
        }
        let [core, _, die, package] = self.topology.shifts();
        let sharing = if answer[0] >> 5 & 7 == 3 { die } else { core };
        let cores = (1 << (package - core)) - 1;
        answer[0] = answer[0] & 0x3fff | ((1 << sharing) - 1) << 14 | cores << 26;
    }

    fn structured(&self, subleaf: u32, answer: &mut [u32; 4]) {
        let Some(features) = &self.features else { return };
        let last = features.iter().filter(|word| word.leaf == 7 && word.bits != 0);
        let last = last.map(|word| word.subleaf).max().unwrap_or(0);
        *answer = [if subleaf == 0 { last } else { 0 }, 0, 0, 0];
        if subleaf <= last {
            self.lay_features(7, subleaf, answer);
        }
    }

    fn saved_state(&self, subleaf: u32, native: Native<'_>) -> Option<[u32; 4]> {
        const LEGACY_BYTES: u32 = 512 + 64;
        let features = self.word(1, 2, native);
        let compact = |answer: &mut [u32; 4]| self.lay_features(0xd, 1, answer);
        match (features & XSAVE != 0, features & AVX != 0, subleaf) {
            (false, ..) => Some([0; 4]),
            (true, false, 0) => Some([3, LEGACY_BYTES, LEGACY_BYTES, 0]),
            (true, _, 1) => {
                let mut answer = native(0xd, 1);
                compact(&mut answer);
                Some(answer)
            }
            (true, false, _) => Some([0; 4]),
            (true, true, _) => None,
        }
    }

    /// Sizes of addresses, and AMD's count of threads.
    fn sizes(&self, answer: &mut [u32; 4], native: Native<'_>) {
        const PHYSICAL_BITS: u32 = 40;
        const NARROW_PHYSICAL_BITS: u32 = 36;
        if self.levels.is_some() {
            let long = self.word(0x8000_0001, 3, native) & LONG_MODE != 0;
            answer[0] = if long { 48 << 8 | PHYSICAL_BITS } else { NARROW_PHYSICAL_BITS };
        }
        self.lay_features(0x8000_0008, 0, answer);
        let threads = self.topology.threads_per_package();
        answer[2] &= !0xf0ff;
        if threads > 1 {
            answer[2] |= bits(threads) << 12 | (threads - 1) & 0xff;
        }
    }
}

/// Four bytes of a name.
fn word(text: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([text[at], text[at + 1], text[at + 2], text[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_has_bits_of_its_own() {
        let topology = Topology { sockets: 2, dies: 1, modules: 1, cores: 3, threads: 2 };
        let ids: Vec<u32> = (0..12).map(|number| topology.apic_id(number)).collect();
        assert_eq!(ids, [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]);
        assert_eq!(topology.level(false, 0, 9), [1, 2, 0x100, 9]);
        assert_eq!(topology.level(false, 1, 9), [3, 6, 0x201, 9]);
        assert_eq!(topology.level(false, 2, 9), [0, 0, 2, 9]);
        let topology = Topology { sockets: 1, dies: 2, modules: 1, cores: 2, threads: 1 };
        assert_eq!(topology.apic_id(3), 3);
        assert_eq!(topology.level(true, 1, 3), [1, 2, 0x201, 3]);
        assert_eq!(topology.level(true, 2, 3), [2, 4, 0x502, 3]);
    }

    #[test]
    fn a_model_covers_what_the_accelerator_has() {
        let native = |leaf: u32, _: u32| match leaf {
            0 | EXTENDED => [leaf + 8, 1, 2, 3],
            _ => [u32::MAX; 4],
        };
        let word = |leaf, register, bits| Features { leaf, subleaf: 0, register, bits };
        let identity = Identity {
            vendor: Some(*b"AuthenticAMD"),
            signature: Some(0x60fb1),
            brand: Some([b'x'; 48]),
            levels: Some((0xd, 0x8000_000a)),
            features: Some(vec![word(1, 2, 0x2001), word(1, 3, 1), word(7, 1, 0)]),
            hypervisor: Some(*b"HHHHHHHHHHHH"),
            topology: Topology::of_cores(4),
        };
        let answer = |leaf| identity.answer(&native, 2, leaf, 0).expect("it is the model's");
        assert_eq!(answer(0), [0xd, 0x6874_7541, 0x444d_4163, 0x6974_6e65]);
        assert_eq!(answer(1), [0x60fb1, 0x0204_0800, 0x2001, 1 | HAS_THREADS]);
        assert_eq!(answer(7), [0; 4]);
        assert_eq!(answer(0xd), [0; 4], "there is no XSAVE");
        assert_eq!(answer(0x8000_0002), [0x7878_7878; 4]);
        assert_eq!(answer(0x8000_0008)[2], 2 << 12 | 3);
        assert_eq!(answer(HYPERVISOR)[1], 0x4848_4848);
    }
}
