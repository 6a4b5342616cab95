//! Features by QEMU's names, and where CPUID or a model-specific register tells of them.

use super::Word;
use super::Word::{Leaf, Msr};

/// Registers of CPUID's answer.
pub const EAX: usize = 0;
/// See [`EAX`].
pub const EBX: usize = 1;
/// See [`EAX`].
pub const ECX: usize = 2;
/// See [`EAX`].
pub const EDX: usize = 3;

/// Other spellings, with what they mean.
pub const SPELLINGS: &[(&str, &str)] = &[
    ("cmp_legacy", "cmp-legacy"),
    ("ds_cpl", "ds-cpl"),
    ("ffxsr", "fxsr-opt"),
    ("fxsr_opt", "fxsr-opt"),
    ("i64", "lm"),
    ("lahf_lm", "lahf-lm"),
    ("nodeid_msr", "nodeid-msr"),
    ("nrip_save", "nrip-save"),
    ("pause_filter", "pause-filter"),
    ("pclmuldq", "pclmulqdq"),
    ("perfctr_core", "perfctr-core"),
    ("perfctr_nb", "perfctr-nb"),
    ("sse3", "pni"),
    ("sse4-1", "sse4.1"),
    ("sse4-2", "sse4.2"),
    ("sse4_1", "sse4.1"),
    ("sse4_2", "sse4.2"),
    ("svm_lock", "svm-lock"),
    ("tsc_adjust", "tsc-adjust"),
    ("tsc_scale", "tsc-scale"),
    ("vmcb_clean", "vmcb-clean"),
    ("xd", "nx"),
];

/// Words of features in the order in which QEMU goes through them; names with their bits.
#[rustfmt::skip]
pub const WORDS: &[(Word, &[(&str, u32)])] = &[
    (Leaf { leaf: 0x1, subleaf: 0, register: EDX }, &[
        ("fpu", 0), ("vme", 1), ("de", 2), ("pse", 3), ("tsc", 4), ("msr", 5), ("pae", 6),
        ("mce", 7), ("cx8", 8), ("apic", 9), ("sep", 11), ("mtrr", 12), ("pge", 13),
        ("mca", 14), ("cmov", 15), ("pat", 16), ("pse36", 17), ("pn", 18), ("clflush", 19),
        ("ds", 21), ("acpi", 22), ("mmx", 23), ("fxsr", 24), ("sse", 25), ("sse2", 26),
        ("ss", 27), ("ht", 28), ("tm", 29), ("ia64", 30), ("pbe", 31),
    ]),
    (Leaf { leaf: 0x1, subleaf: 0, register: ECX }, &[
        ("pni", 0), ("pclmulqdq", 1), ("dtes64", 2), ("monitor", 3), ("ds-cpl", 4), ("vmx", 5),
        ("smx", 6), ("est", 7), ("tm2", 8), ("ssse3", 9), ("cid", 10), ("fma", 12),
        ("cx16", 13), ("xtpr", 14), ("pdcm", 15), ("pcid", 17), ("dca", 18), ("sse4.1", 19),
        ("sse4.2", 20), ("x2apic", 21), ("movbe", 22), ("popcnt", 23), ("tsc-deadline", 24),
        ("aes", 25), ("xsave", 26), ("avx", 28), ("f16c", 29), ("rdrand", 30),
        ("hypervisor", 31),
    ]),
    (Leaf { leaf: 0x7, subleaf: 0, register: EBX }, &[
        ("fsgsbase", 0), ("tsc-adjust", 1), ("sgx", 2), ("bmi1", 3), ("hle", 4), ("avx2", 5),
        ("fdp-excptn-only", 6), ("smep", 7), ("bmi2", 8), ("erms", 9), ("invpcid", 10),
        ("rtm", 11), ("zero-fcs-fds", 13), ("mpx", 14), ("avx512f", 16), ("avx512dq", 17),
        ("rdseed", 18), ("adx", 19), ("smap", 20), ("avx512ifma", 21), ("pcommit", 22),
        ("clflushopt", 23), ("clwb", 24), ("intel-pt", 25), ("avx512pf", 26), ("avx512er", 27),
        ("avx512cd", 28), ("sha-ni", 29), ("avx512bw", 30), ("avx512vl", 31),
    ]),
    (Leaf { leaf: 0x7, subleaf: 0, register: ECX }, &[
        ("avx512vbmi", 1), ("umip", 2), ("pku", 3), ("waitpkg", 5), ("avx512vbmi2", 6),
        ("gfni", 8), ("vaes", 9), ("vpclmulqdq", 10), ("avx512vnni", 11), ("avx512bitalg", 12),
        ("avx512-vpopcntdq", 14), ("la57", 16), ("rdpid", 22), ("bus-lock-detect", 24),
        ("cldemote", 25), ("movdiri", 27), ("movdir64b", 28), ("pks", 31),
    ]),
    (Leaf { leaf: 0x7, subleaf: 0, register: EDX }, &[
        ("avx512-4vnniw", 2), ("avx512-4fmaps", 3), ("fsrm", 4), ("avx512-vp2intersect", 8),
        ("md-clear", 10), ("serialize", 14), ("tsx-ldtrk", 16), ("arch-lbr", 19),
        ("amx-bf16", 22), ("avx512-fp16", 23), ("amx-tile", 24), ("amx-int8", 25),
        ("spec-ctrl", 26), ("stibp", 27), ("flush-l1d", 28), ("arch-capabilities", 29),
        ("core-capability", 30), ("ssbd", 31),
    ]),
    (Leaf { leaf: 0x7, subleaf: 1, register: EAX }, &[
        ("sha512", 0), ("sm3", 1), ("sm4", 2), ("avx-vnni", 4), ("avx512-bf16", 5),
        ("cmpccxadd", 7), ("fzrm", 10), ("fsrs", 11), ("fsrc", 12), ("fred", 17), ("lkgs", 18),
        ("wrmsrns", 19), ("amx-fp16", 21), ("avx-ifma", 23), ("lam", 26),
    ]),
    (Leaf { leaf: 0x7, subleaf: 1, register: EDX }, &[
        ("avx-vnni-int8", 4), ("avx-ne-convert", 5), ("amx-complex", 8),
        ("avx-vnni-int16", 10), ("prefetchiti", 14), ("avx10", 19),
    ]),
    (Leaf { leaf: 0x7, subleaf: 2, register: EDX }, &[
        ("intel-psfd", 0), ("ipred-ctrl", 1), ("rrsba-ctrl", 2), ("ddpd-u", 3),
        ("bhi-ctrl", 4), ("mcdt-no", 5),
    ]),
    (Leaf { leaf: 0x80000001, subleaf: 0, register: EDX }, &[
        ("syscall", 11), ("nx", 20), ("mmxext", 22), ("fxsr-opt", 25), ("pdpe1gb", 26),
        ("rdtscp", 27), ("lm", 29), ("3dnowext", 30), ("3dnow", 31),
    ]),
    (Leaf { leaf: 0x80000001, subleaf: 0, register: ECX }, &[
        ("lahf-lm", 0), ("cmp-legacy", 1), ("svm", 2), ("extapic", 3), ("cr8legacy", 4),
        ("abm", 5), ("sse4a", 6), ("misalignsse", 7), ("3dnowprefetch", 8), ("osvw", 9),
        ("ibs", 10), ("xop", 11), ("skinit", 12), ("wdt", 13), ("lwp", 15), ("fma4", 16),
        ("tce", 17), ("nodeid-msr", 19), ("tbm", 21), ("topoext", 22), ("perfctr-core", 23),
        ("perfctr-nb", 24),
    ]),
    (Leaf { leaf: 0x80000007, subleaf: 0, register: EBX }, &[
        ("overflow-recov", 0), ("succor", 1),
    ]),
    (Leaf { leaf: 0x80000007, subleaf: 0, register: EDX }, &[
        ("invtsc", 8),
    ]),
    (Leaf { leaf: 0x80000008, subleaf: 0, register: EBX }, &[
        ("clzero", 0), ("xsaveerptr", 2), ("wbnoinvd", 9), ("ibpb", 12), ("ibrs", 14),
        ("amd-stibp", 15), ("stibp-always-on", 17), ("amd-ssbd", 24), ("virt-ssbd", 25),
        ("amd-no-ssb", 26), ("amd-psfd", 28),
    ]),
    (Leaf { leaf: 0x80000021, subleaf: 0, register: EAX }, &[
        ("no-nested-data-bp", 0), ("lfence-always-serializing", 2), ("null-sel-clr-base", 6),
        ("auto-ibrs", 8), ("eraps", 24), ("sbpb", 27), ("ibpb-brtype", 28), ("srso-no", 29),
        ("srso-user-kernel-no", 30),
    ]),
    (Leaf { leaf: 0x80000022, subleaf: 0, register: EAX }, &[
        ("perfmon-v2", 0),
    ]),
    (Leaf { leaf: 0xc0000001, subleaf: 0, register: EDX }, &[
        ("xstore", 2), ("xstore-en", 3), ("xcrypt", 6), ("xcrypt-en", 7), ("ace2", 8),
        ("ace2-en", 9), ("phe", 10), ("phe-en", 11), ("pmm", 12), ("pmm-en", 13),
    ]),
    (Leaf { leaf: 0x8000000a, subleaf: 0, register: EDX }, &[
        ("npt", 0), ("lbrv", 1), ("svm-lock", 2), ("nrip-save", 3), ("tsc-scale", 4),
        ("vmcb-clean", 5), ("flushbyasid", 6), ("decodeassists", 7), ("pause-filter", 10),
        ("pfthreshold", 12), ("avic", 13), ("v-vmsave-vmload", 15), ("vgif", 16), ("vnmi", 25),
        ("svme-addr-chk", 28),
    ]),
    (Leaf { leaf: 0xd, subleaf: 1, register: EAX }, &[
        ("xsaveopt", 0), ("xsavec", 1), ("xgetbv1", 2), ("xsaves", 3), ("xfd", 4),
    ]),
    (Leaf { leaf: 0x6, subleaf: 0, register: EAX }, &[
        ("arat", 2),
    ]),
    (Msr(0x10a), &[
        ("rdctl-no", 0), ("ibrs-all", 1), ("rsba", 2), ("skip-l1dfl-vmentry", 3),
        ("ssb-no", 4), ("mds-no", 5), ("pschange-mc-no", 6), ("tsx-ctrl", 7), ("taa-no", 8),
        ("sbdr-ssdp-no", 13), ("fbsdp-no", 14), ("psdp-no", 15), ("fb-clear", 17),
        ("bhi-no", 20), ("pbrsb-no", 24), ("gds-no", 26), ("rfds-no", 27), ("rfds-clear", 28),
    ]),
    (Msr(0xcf), &[
        ("split-lock-detect", 5),
    ]),
];
