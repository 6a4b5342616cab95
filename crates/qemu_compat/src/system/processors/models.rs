//! The processor models that QEMU 10.0 knows: what each says of itself in CPUID. Read off the
//! reference by `query-cpu-model-expansion`; a later version says only in what it differs.

use super::{Model, Version};

/// In the order of their names.
#[rustfmt::skip]
pub const MODELS: &[Model] = &[
    Model {
        name: "486", vendor: "GenuineIntel", family: 4,
        features: "
            fpu pse hypervisor",
        versions: &[
            Version { text: "", note: "", alias: "",
                model: 8, stepping: 0, level: 0x1, xlevel: 0x0,
                changes: "" },
        ],
    },
    Model {
        name: "Broadwell", vendor: "GenuineIntel", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt
            tsc-deadline aes xsave avx f16c rdrand hypervisor fsgsbase bmi1 hle avx2 smep bmi2
            erms invpcid rtm rdseed adx smap syscall nx rdtscp lm lahf-lm abm 3dnowprefetch
            xsaveopt arat",
        versions: &[
            Version { text: "Intel Core Processor (Broadwell)", note: "", alias: "",
                model: 61, stepping: 2, level: 0xd, xlevel: 0x80000008,
                changes: "" },
            Version { text: "Intel Core Processor (Broadwell, no TSX)", note: "", alias: "Broadwell-noTSX",
                model: 61, stepping: 2, level: 0xd, xlevel: 0x80000008,
                changes: "-hle -rtm" },
            Version { text: "Intel Core Processor (Broadwell, IBRS)", note: "", alias: "Broadwell-IBRS",
                model: 61, stepping: 2, level: 0xd, xlevel: 0x80000008,
                changes: "+spec-ctrl" },
            Version { text: "Intel Core Processor (Broadwell, no TSX, IBRS)", note: "", alias: "Broadwell-noTSX-IBRS",
                model: 61, stepping: 2, level: 0xd, xlevel: 0x80000008,
                changes: "+spec-ctrl -hle -rtm" },
        ],
    },
    Model {
        name: "Cascadelake-Server", vendor: "GenuineIntel", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt
            tsc-deadline aes xsave avx f16c rdrand hypervisor fsgsbase bmi1 hle avx2 smep bmi2
            erms invpcid rtm avx512f avx512dq rdseed adx smap clflushopt clwb avx512cd avx512bw
            avx512vl pku avx512vnni spec-ctrl ssbd syscall nx pdpe1gb rdtscp lm lahf-lm abm
            3dnowprefetch xsaveopt xsavec xgetbv1 arat",
        versions: &[
            Version { text: "Intel Xeon Processor (Cascadelake)", note: "", alias: "",
                model: 85, stepping: 6, level: 0xd, xlevel: 0x80000008,
                changes: "" },
            Version { text: "Intel Xeon Processor (Cascadelake)", note: "[ARCH_CAPABILITIES]", alias: "",
                model: 85, stepping: 6, level: 0xd, xlevel: 0x80000008,
                changes: "+arch-capabilities +rdctl-no +ibrs-all +skip-l1dfl-vmentry +mds-no" },
            Version { text: "Intel Xeon Processor (Cascadelake)", note: "[ARCH_CAPABILITIES, no TSX]", alias: "Cascadelake-Server-noTSX",
                model: 85, stepping: 6, level: 0xd, xlevel: 0x80000008,
                changes: "+arch-capabilities +rdctl-no +ibrs-all +skip-l1dfl-vmentry +mds-no -hle
                    -rtm" },
            Version { text: "Intel Xeon Processor (Cascadelake)", note: "[ARCH_CAPABILITIES, EPT switching, no TSX]", alias: "",
                model: 85, stepping: 6, level: 0xd, xlevel: 0x80000008,
                changes: "+arch-capabilities +rdctl-no +ibrs-all +skip-l1dfl-vmentry +mds-no -hle
                    -rtm" },
            Version { text: "Intel Xeon Processor (Cascadelake)", note: "[ARCH_CAPABILITIES, EPT switching, XSAVES, no TSX]", alias: "",
                model: 85, stepping: 6, level: 0xd, xlevel: 0x80000008,
                changes: "
                    +arch-capabilities +xsaves +rdctl-no +ibrs-all +skip-l1dfl-vmentry +mds-no
                    -hle -rtm" },
        ],
    },
    Model {
        name: "ClearwaterForest", vendor: "GenuineIntel", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 ss pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe
            popcnt tsc-deadline aes xsave avx f16c rdrand hypervisor fsgsbase tsc-adjust bmi1
            avx2 smep bmi2 erms invpcid rdseed adx smap clflushopt clwb sha-ni umip pku gfni
            vaes vpclmulqdq rdpid bus-lock-detect cldemote movdiri movdir64b fsrm serialize
            spec-ctrl arch-capabilities ssbd sha512 sm3 sm4 avx-vnni cmpccxadd fsrs avx-ifma
            lam avx-vnni-int8 avx-ne-convert avx-vnni-int16 prefetchiti intel-psfd ipred-ctrl
            rrsba-ctrl ddpd-u bhi-ctrl mcdt-no syscall nx pdpe1gb rdtscp lm lahf-lm abm
            3dnowprefetch wbnoinvd xsaveopt xsavec xgetbv1 xsaves arat rdctl-no ibrs-all
            skip-l1dfl-vmentry mds-no pschange-mc-no sbdr-ssdp-no fbsdp-no psdp-no bhi-no
            pbrsb-no gds-no rfds-no",
        versions: &[
            Version { text: "Intel Xeon Processor (ClearwaterForest)", note: "", alias: "",
                model: 221, stepping: 0, level: 0x23, xlevel: 0x80000008,
                changes: "" },
        ],
    },
    Model {
        name: "Conroe", vendor: "GenuineIntel", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni ssse3 hypervisor syscall nx lm lahf-lm",
        versions: &[
            Version { text: "Intel Celeron_4x0 (Conroe/Merom Class Core 2)", note: "", alias: "",
                model: 15, stepping: 3, level: 0xa, xlevel: 0x80000008,
                changes: "" },
        ],
    },
    Model {
        name: "Cooperlake", vendor: "GenuineIntel", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt
            tsc-deadline aes xsave avx f16c rdrand hypervisor fsgsbase bmi1 hle avx2 smep bmi2
            erms invpcid rtm avx512f avx512dq rdseed adx smap clflushopt clwb avx512cd avx512bw
            avx512vl pku avx512vnni spec-ctrl stibp arch-capabilities ssbd avx512-bf16 syscall
            nx pdpe1gb rdtscp lm lahf-lm abm 3dnowprefetch xsaveopt xsavec xgetbv1 arat
            rdctl-no ibrs-all skip-l1dfl-vmentry mds-no pschange-mc-no taa-no",
        versions: &[
            Version { text: "Intel Xeon Processor (Cooperlake)", note: "", alias: "",
                model: 85, stepping: 10, level: 0xd, xlevel: 0x80000008,
                changes: "" },
            Version { text: "Intel Xeon Processor (Cooperlake)", note: "[XSAVES]", alias: "",
                model: 85, stepping: 10, level: 0xd, xlevel: 0x80000008,
                changes: "+xsaves" },
        ],
    },
    Model {
        name: "Denverton", vendor: "GenuineIntel", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni pclmulqdq monitor ssse3 cx16 sse4.1 sse4.2 x2apic movbe popcnt
            tsc-deadline aes xsave rdrand hypervisor fsgsbase smep erms mpx rdseed smap
            clflushopt sha-ni spec-ctrl arch-capabilities ssbd syscall nx pdpe1gb rdtscp lm
            lahf-lm 3dnowprefetch xsaveopt xsavec xgetbv1 arat rdctl-no skip-l1dfl-vmentry",
        versions: &[
            Version { text: "Intel Atom Processor (Denverton)", note: "", alias: "",
                model: 95, stepping: 1, level: 0x15, xlevel: 0x80000008,
                changes: "" },
            Version { text: "Intel Atom Processor (Denverton)", note: "[no MPX, no MONITOR]", alias: "",
                model: 95, stepping: 1, level: 0x15, xlevel: 0x80000008,
                changes: "-monitor -mpx" },
            Version { text: "Intel Atom Processor (Denverton)", note: "[XSAVES, no MPX, no MONITOR]", alias: "",
                model: 95, stepping: 1, level: 0x15, xlevel: 0x80000008,
                changes: "+xsaves -monitor -mpx" },
        ],
    },
    Model {
        name: "Dhyana", vendor: "HygonGenuine", family: 24,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni monitor ssse3 fma cx16 sse4.1 sse4.2 movbe popcnt xsave avx f16c
            rdrand hypervisor fsgsbase bmi1 avx2 smep bmi2 rdseed adx smap clflushopt syscall
            nx mmxext fxsr-opt pdpe1gb rdtscp lm lahf-lm svm cr8legacy abm sse4a misalignsse
            3dnowprefetch osvw topoext ibpb npt nrip-save xsaveopt xsavec xgetbv1 arat",
        versions: &[
            Version { text: "Hygon Dhyana Processor", note: "", alias: "",
                model: 0, stepping: 1, level: 0xd, xlevel: 0x8000001e,
                changes: "" },
            Version { text: "Hygon Dhyana Processor", note: "[XSAVES]", alias: "",
                model: 0, stepping: 1, level: 0xd, xlevel: 0x8000001e,
                changes: "+xsaves" },
        ],
    },
    Model {
        name: "EPYC", vendor: "AuthenticAMD", family: 23,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni pclmulqdq monitor ssse3 fma cx16 sse4.1 sse4.2 movbe popcnt aes
            xsave avx f16c rdrand hypervisor fsgsbase bmi1 avx2 smep bmi2 rdseed adx smap
            clflushopt sha-ni syscall nx mmxext fxsr-opt pdpe1gb rdtscp lm lahf-lm svm
            cr8legacy abm sse4a misalignsse 3dnowprefetch osvw topoext npt nrip-save xsaveopt
            xsavec xgetbv1 arat",
        versions: &[
            Version { text: "AMD EPYC Processor", note: "", alias: "",
                model: 1, stepping: 2, level: 0xd, xlevel: 0x8000001e,
                changes: "" },
            Version { text: "AMD EPYC Processor (with IBPB)", note: "", alias: "EPYC-IBPB",
                model: 1, stepping: 2, level: 0xd, xlevel: 0x8000001e,
                changes: "+ibpb" },
            Version { text: "AMD EPYC Processor", note: "", alias: "",
                model: 1, stepping: 2, level: 0xd, xlevel: 0x8000001e,
                changes: "+perfctr-core +clzero +xsaveerptr +ibpb +xsaves" },
            Version { text: "AMD EPYC-v4 Processor", note: "", alias: "",
                model: 1, stepping: 2, level: 0xd, xlevel: 0x8000001e,
                changes: "+perfctr-core +clzero +xsaveerptr +ibpb +xsaves" },
        ],
    },
    Model {
        name: "EPYC-Genoa", vendor: "AuthenticAMD", family: 25,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni pclmulqdq monitor ssse3 fma cx16 pcid sse4.1 sse4.2 movbe popcnt
            aes xsave avx f16c rdrand hypervisor fsgsbase bmi1 avx2 smep bmi2 erms invpcid
            avx512f avx512dq rdseed adx smap avx512ifma clflushopt clwb avx512cd sha-ni
            avx512bw avx512vl avx512vbmi umip pku avx512vbmi2 gfni vaes vpclmulqdq avx512vnni
            avx512bitalg avx512-vpopcntdq la57 rdpid fsrm avx512-bf16 syscall nx mmxext
            fxsr-opt pdpe1gb rdtscp lm lahf-lm svm cr8legacy abm sse4a misalignsse
            3dnowprefetch osvw topoext perfctr-core clzero xsaveerptr wbnoinvd ibpb ibrs
            amd-stibp stibp-always-on amd-ssbd amd-psfd no-nested-data-bp
            lfence-always-serializing null-sel-clr-base auto-ibrs npt nrip-save vnmi
            svme-addr-chk xsaveopt xsavec xgetbv1 xsaves arat",
        versions: &[
            Version { text: "AMD EPYC-Genoa Processor", note: "", alias: "",
                model: 17, stepping: 0, level: 0xd, xlevel: 0x80000022,
                changes: "" },
        ],
    },
    Model {
        name: "EPYC-Milan", vendor: "AuthenticAMD", family: 25,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni pclmulqdq monitor ssse3 fma cx16 pcid sse4.1 sse4.2 movbe popcnt
            aes xsave avx f16c rdrand hypervisor fsgsbase bmi1 avx2 smep bmi2 erms invpcid
            rdseed adx smap clflushopt clwb sha-ni umip pku rdpid fsrm syscall nx mmxext
            fxsr-opt pdpe1gb rdtscp lm lahf-lm svm cr8legacy abm sse4a misalignsse
            3dnowprefetch osvw topoext perfctr-core clzero xsaveerptr wbnoinvd ibpb ibrs
            amd-stibp amd-ssbd npt nrip-save svme-addr-chk xsaveopt xsavec xgetbv1 xsaves arat",
        versions: &[
            Version { text: "AMD EPYC-Milan Processor", note: "", alias: "",
                model: 1, stepping: 1, level: 0xd, xlevel: 0x8000001e,
                changes: "" },
            Version { text: "AMD EPYC-Milan-v2 Processor", note: "", alias: "",
                model: 1, stepping: 1, level: 0xd, xlevel: 0x80000021,
                changes: "+vaes +vpclmulqdq +stibp-always-on +amd-psfd +no-nested-data-bp
                    +lfence-always-serializing +null-sel-clr-base" },
        ],
    },
    Model {
        name: "EPYC-Rome", vendor: "AuthenticAMD", family: 23,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni pclmulqdq monitor ssse3 fma cx16 sse4.1 sse4.2 movbe popcnt aes
            xsave avx f16c rdrand hypervisor fsgsbase bmi1 avx2 smep bmi2 rdseed adx smap
            clflushopt clwb sha-ni umip rdpid syscall nx mmxext fxsr-opt pdpe1gb rdtscp lm
            lahf-lm svm cr8legacy abm sse4a misalignsse 3dnowprefetch osvw topoext perfctr-core
            clzero xsaveerptr wbnoinvd ibpb amd-stibp npt nrip-save xsaveopt xsavec xgetbv1
            xsaves arat",
        versions: &[
            Version { text: "AMD EPYC-Rome Processor", note: "", alias: "",
                model: 49, stepping: 0, level: 0xd, xlevel: 0x8000001e,
                changes: "" },
            Version { text: "AMD EPYC-Rome Processor", note: "", alias: "",
                model: 49, stepping: 0, level: 0xd, xlevel: 0x8000001e,
                changes: "+ibrs +amd-ssbd" },
            Version { text: "AMD EPYC-Rome-v3 Processor", note: "", alias: "",
                model: 49, stepping: 0, level: 0xd, xlevel: 0x8000001e,
                changes: "+ibrs +amd-ssbd" },
            Version { text: "AMD EPYC-Rome-v4 Processor (no XSAVES)", note: "", alias: "",
                model: 49, stepping: 0, level: 0xd, xlevel: 0x8000001e,
                changes: "+ibrs +amd-ssbd -xsaves" },
        ],
    },
    Model {
        name: "GraniteRapids", vendor: "GenuineIntel", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt
            tsc-deadline aes xsave avx f16c rdrand hypervisor fsgsbase bmi1 hle avx2 smep bmi2
            erms invpcid rtm avx512f avx512dq rdseed adx smap avx512ifma clflushopt clwb
            avx512cd sha-ni avx512bw avx512vl avx512vbmi umip pku avx512vbmi2 gfni vaes
            vpclmulqdq avx512vnni avx512bitalg avx512-vpopcntdq la57 rdpid bus-lock-detect fsrm
            serialize tsx-ldtrk amx-bf16 avx512-fp16 amx-tile amx-int8 spec-ctrl
            arch-capabilities ssbd avx-vnni avx512-bf16 fzrm fsrs fsrc amx-fp16 prefetchiti
            mcdt-no syscall nx pdpe1gb rdtscp lm lahf-lm abm 3dnowprefetch wbnoinvd xsaveopt
            xsavec xgetbv1 xsaves xfd arat rdctl-no ibrs-all skip-l1dfl-vmentry mds-no
            pschange-mc-no taa-no sbdr-ssdp-no fbsdp-no psdp-no pbrsb-no",
        versions: &[
            Version { text: "Intel Xeon Processor (GraniteRapids)", note: "", alias: "",
                model: 173, stepping: 0, level: 0x20, xlevel: 0x80000008,
                changes: "" },
            Version { text: "Intel Xeon Processor (GraniteRapids)", note: "", alias: "",
                model: 173, stepping: 1, level: 0x24, xlevel: 0x80000008,
                changes: "+ss +tsc-adjust +cldemote +movdiri +movdir64b +avx10" },
        ],
    },
    Model {
        name: "Haswell", vendor: "GenuineIntel", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt
            tsc-deadline aes xsave avx f16c rdrand hypervisor fsgsbase bmi1 hle avx2 smep bmi2
            erms invpcid rtm syscall nx rdtscp lm lahf-lm abm xsaveopt arat",
        versions: &[
            Version { text: "Intel Core Processor (Haswell)", note: "", alias: "",
                model: 60, stepping: 4, level: 0xd, xlevel: 0x80000008,
                changes: "" },
            Version { text: "Intel Core Processor (Haswell, no TSX)", note: "", alias: "Haswell-noTSX",
                model: 60, stepping: 1, level: 0xd, xlevel: 0x80000008,
                changes: "-hle -rtm" },
            Version { text: "Intel Core Processor (Haswell, IBRS)", note: "", alias: "Haswell-IBRS",
                model: 60, stepping: 4, level: 0xd, xlevel: 0x80000008,
                changes: "+spec-ctrl" },
            Version { text: "Intel Core Processor (Haswell, no TSX, IBRS)", note: "", alias: "Haswell-noTSX-IBRS",
                model: 60, stepping: 1, level: 0xd, xlevel: 0x80000008,
                changes: "+spec-ctrl -hle -rtm" },
        ],
    },
    Model {
        name: "Icelake-Server", vendor: "GenuineIntel", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt
            tsc-deadline aes xsave avx f16c rdrand hypervisor fsgsbase bmi1 hle avx2 smep bmi2
            erms invpcid rtm avx512f avx512dq rdseed adx smap clflushopt clwb avx512cd avx512bw
            avx512vl avx512vbmi umip pku avx512vbmi2 gfni vaes vpclmulqdq avx512vnni
            avx512bitalg avx512-vpopcntdq la57 spec-ctrl ssbd syscall nx pdpe1gb rdtscp lm
            lahf-lm abm 3dnowprefetch wbnoinvd xsaveopt xsavec xgetbv1 arat",
        versions: &[
            Version { text: "Intel Xeon Processor (Icelake)", note: "", alias: "",
                model: 134, stepping: 0, level: 0xd, xlevel: 0x80000008,
                changes: "" },
            Version { text: "Intel Xeon Processor (Icelake)", note: "[no TSX]", alias: "Icelake-Server-noTSX",
                model: 134, stepping: 0, level: 0xd, xlevel: 0x80000008,
                changes: "-hle -rtm" },
            Version { text: "Intel Xeon Processor (Icelake)", note: "", alias: "",
                model: 134, stepping: 0, level: 0xd, xlevel: 0x80000008,
                changes: "
                    +arch-capabilities +rdctl-no +ibrs-all +skip-l1dfl-vmentry +mds-no
                    +pschange-mc-no +taa-no -hle -rtm" },
            Version { text: "Intel Xeon Processor (Icelake)", note: "", alias: "",
                model: 106, stepping: 0, level: 0xd, xlevel: 0x80000008,
                changes: "
                    +avx512ifma +sha-ni +rdpid +fsrm +arch-capabilities +rdctl-no +ibrs-all
                    +skip-l1dfl-vmentry +mds-no +pschange-mc-no +taa-no -hle -rtm" },
            Version { text: "Intel Xeon Processor (Icelake)", note: "[XSAVES]", alias: "",
                model: 106, stepping: 0, level: 0xd, xlevel: 0x80000008,
                changes: "
                    +avx512ifma +sha-ni +rdpid +fsrm +arch-capabilities +xsaves +rdctl-no
                    +ibrs-all +skip-l1dfl-vmentry +mds-no +pschange-mc-no +taa-no -hle -rtm" },
            Version { text: "Intel Xeon Processor (Icelake)", note: "[5-level EPT]", alias: "",
                model: 106, stepping: 0, level: 0xd, xlevel: 0x80000008,
                changes: "
                    +avx512ifma +sha-ni +rdpid +fsrm +arch-capabilities +xsaves +rdctl-no
                    +ibrs-all +skip-l1dfl-vmentry +mds-no +pschange-mc-no +taa-no -hle -rtm" },
            Version { text: "Intel Xeon Processor (Icelake)", note: "[TSX, taa-no]", alias: "",
                model: 106, stepping: 0, level: 0xd, xlevel: 0x80000008,
                changes: "
                    +avx512ifma +sha-ni +rdpid +fsrm +arch-capabilities +xsaves +rdctl-no
                    +ibrs-all +skip-l1dfl-vmentry +mds-no +pschange-mc-no +taa-no" },
        ],
    },
    Model {
        name: "IvyBridge", vendor: "GenuineIntel", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni pclmulqdq ssse3 cx16 sse4.1 sse4.2 x2apic popcnt tsc-deadline aes
            xsave avx f16c rdrand hypervisor fsgsbase smep erms syscall nx rdtscp lm lahf-lm
            xsaveopt arat",
        versions: &[
            Version { text: "Intel Xeon E3-12xx v2 (Ivy Bridge)", note: "", alias: "",
                model: 58, stepping: 9, level: 0xd, xlevel: 0x80000008,
                changes: "" },
            Version { text: "Intel Xeon E3-12xx v2 (Ivy Bridge, IBRS)", note: "", alias: "IvyBridge-IBRS",
                model: 58, stepping: 9, level: 0xd, xlevel: 0x80000008,
                changes: "+spec-ctrl" },
        ],
    },
    Model {
        name: "KnightsMill", vendor: "GenuineIntel", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 ss pni pclmulqdq ssse3 fma cx16 sse4.1 sse4.2 x2apic movbe popcnt
            tsc-deadline aes xsave avx f16c rdrand hypervisor fsgsbase bmi1 avx2 smep bmi2 erms
            avx512f rdseed adx avx512pf avx512er avx512cd avx512-vpopcntdq avx512-4vnniw
            avx512-4fmaps syscall nx pdpe1gb rdtscp lm lahf-lm abm 3dnowprefetch xsaveopt arat",
        versions: &[
            Version { text: "Intel Xeon Phi Processor (Knights Mill)", note: "", alias: "",
                model: 133, stepping: 0, level: 0xd, xlevel: 0x80000008,
                changes: "" },
        ],
    },
    Model {
        name: "Nehalem", vendor: "GenuineIntel", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni ssse3 cx16 sse4.1 sse4.2 popcnt hypervisor syscall nx lm lahf-lm",
        versions: &[
            Version { text: "Intel Core i7 9xx (Nehalem Class Core i7)", note: "", alias: "",
                model: 26, stepping: 3, level: 0xb, xlevel: 0x80000008,
                changes: "" },
            Version { text: "Intel Core i7 9xx (Nehalem Core i7, IBRS update)", note: "", alias: "Nehalem-IBRS",
                model: 26, stepping: 3, level: 0xb, xlevel: 0x80000008,
                changes: "+spec-ctrl" },
        ],
    },
    Model {
        name: "Opteron_G1", vendor: "AuthenticAMD", family: 15,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni hypervisor syscall nx lm",
        versions: &[
            Version { text: "AMD Opteron 240 (Gen 1 Class Opteron)", note: "", alias: "",
                model: 6, stepping: 1, level: 0x5, xlevel: 0x80000008,
                changes: "" },
        ],
    },
    Model {
        name: "Opteron_G2", vendor: "AuthenticAMD", family: 15,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni cx16 hypervisor syscall nx lm lahf-lm svm",
        versions: &[
            Version { text: "AMD Opteron 22xx (Gen 2 Class Opteron)", note: "", alias: "",
                model: 6, stepping: 1, level: 0x5, xlevel: 0x8000000a,
                changes: "" },
        ],
    },
    Model {
        name: "Opteron_G3", vendor: "AuthenticAMD", family: 16,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni monitor cx16 popcnt hypervisor syscall nx rdtscp lm lahf-lm svm
            abm sse4a misalignsse",
        versions: &[
            Version { text: "AMD Opteron 23xx (Gen 3 Class Opteron)", note: "", alias: "",
                model: 2, stepping: 3, level: 0x5, xlevel: 0x8000000a,
                changes: "" },
        ],
    },
    Model {
        name: "Opteron_G4", vendor: "AuthenticAMD", family: 21,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni pclmulqdq ssse3 cx16 sse4.1 sse4.2 popcnt aes xsave avx
            hypervisor syscall nx pdpe1gb rdtscp lm lahf-lm svm abm sse4a misalignsse
            3dnowprefetch xop fma4 npt nrip-save",
        versions: &[
            Version { text: "AMD Opteron 62xx class CPU", note: "", alias: "",
                model: 1, stepping: 2, level: 0xd, xlevel: 0x8000001a,
                changes: "" },
        ],
    },
    Model {
        name: "Opteron_G5", vendor: "AuthenticAMD", family: 21,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni pclmulqdq ssse3 fma cx16 sse4.1 sse4.2 popcnt aes xsave avx f16c
            hypervisor syscall nx pdpe1gb rdtscp lm lahf-lm svm abm sse4a misalignsse
            3dnowprefetch xop fma4 tbm npt nrip-save",
        versions: &[
            Version { text: "AMD Opteron 63xx class CPU", note: "", alias: "",
                model: 2, stepping: 0, level: 0xd, xlevel: 0x8000001a,
                changes: "" },
        ],
    },
    Model {
        name: "Penryn", vendor: "GenuineIntel", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni ssse3 cx16 sse4.1 hypervisor syscall nx lm lahf-lm",
        versions: &[
            Version { text: "Intel Core 2 Duo P9xxx (Penryn Class Core 2)", note: "", alias: "",
                model: 23, stepping: 3, level: 0xa, xlevel: 0x80000008,
                changes: "" },
        ],
    },
    Model {
        name: "SandyBridge", vendor: "GenuineIntel", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni pclmulqdq ssse3 cx16 sse4.1 sse4.2 x2apic popcnt tsc-deadline aes
            xsave avx hypervisor syscall nx rdtscp lm lahf-lm xsaveopt arat",
        versions: &[
            Version { text: "Intel Xeon E312xx (Sandy Bridge)", note: "", alias: "",
                model: 42, stepping: 1, level: 0xd, xlevel: 0x80000008,
                changes: "" },
            Version { text: "Intel Xeon E312xx (Sandy Bridge, IBRS update)", note: "", alias: "SandyBridge-IBRS",
                model: 42, stepping: 1, level: 0xd, xlevel: 0x80000008,
                changes: "+spec-ctrl" },
        ],
    },
    Model {
        name: "SapphireRapids", vendor: "GenuineIntel", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt
            tsc-deadline aes xsave avx f16c rdrand hypervisor fsgsbase bmi1 hle avx2 smep bmi2
            erms invpcid rtm avx512f avx512dq rdseed adx smap avx512ifma clflushopt clwb
            avx512cd sha-ni avx512bw avx512vl avx512vbmi umip pku avx512vbmi2 gfni vaes
            vpclmulqdq avx512vnni avx512bitalg avx512-vpopcntdq la57 rdpid bus-lock-detect fsrm
            serialize tsx-ldtrk amx-bf16 avx512-fp16 amx-tile amx-int8 spec-ctrl
            arch-capabilities ssbd avx-vnni avx512-bf16 fzrm fsrs fsrc syscall nx pdpe1gb
            rdtscp lm lahf-lm abm 3dnowprefetch wbnoinvd xsaveopt xsavec xgetbv1 xsaves xfd
            arat rdctl-no ibrs-all skip-l1dfl-vmentry mds-no pschange-mc-no taa-no",
        versions: &[
            Version { text: "Intel Xeon Processor (SapphireRapids)", note: "", alias: "",
                model: 143, stepping: 4, level: 0x20, xlevel: 0x80000008,
                changes: "" },
            Version { text: "Intel Xeon Processor (SapphireRapids)", note: "", alias: "",
                model: 143, stepping: 4, level: 0x20, xlevel: 0x80000008,
                changes: "+sbdr-ssdp-no +fbsdp-no +psdp-no" },
            Version { text: "Intel Xeon Processor (SapphireRapids)", note: "", alias: "",
                model: 143, stepping: 4, level: 0x20, xlevel: 0x80000008,
                changes: "
                    +ss +tsc-adjust +cldemote +movdiri +movdir64b +sbdr-ssdp-no +fbsdp-no
                    +psdp-no" },
        ],
    },
    Model {
        name: "SierraForest", vendor: "GenuineIntel", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt
            tsc-deadline aes xsave avx f16c rdrand hypervisor fsgsbase bmi1 avx2 smep bmi2 erms
            invpcid rdseed adx smap clflushopt clwb sha-ni umip pku gfni vaes vpclmulqdq rdpid
            bus-lock-detect fsrm serialize spec-ctrl arch-capabilities ssbd avx-vnni cmpccxadd
            fsrs avx-ifma avx-vnni-int8 avx-ne-convert mcdt-no syscall nx pdpe1gb rdtscp lm
            lahf-lm abm 3dnowprefetch wbnoinvd xsaveopt xsavec xgetbv1 xsaves arat rdctl-no
            ibrs-all skip-l1dfl-vmentry mds-no pschange-mc-no sbdr-ssdp-no fbsdp-no psdp-no
            pbrsb-no",
        versions: &[
            Version { text: "Intel Xeon Processor (SierraForest)", note: "", alias: "",
                model: 175, stepping: 0, level: 0x23, xlevel: 0x80000008,
                changes: "" },
            Version { text: "Intel Xeon Processor (SierraForest)", note: "", alias: "",
                model: 175, stepping: 3, level: 0x23, xlevel: 0x80000008,
                changes: "
                    +ss +tsc-adjust +cldemote +movdiri +movdir64b +lam +intel-psfd +ipred-ctrl
                    +rrsba-ctrl +bhi-ctrl +gds-no +rfds-no" },
        ],
    },
    Model {
        name: "Skylake-Client", vendor: "GenuineIntel", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt
            tsc-deadline aes xsave avx f16c rdrand hypervisor fsgsbase bmi1 hle avx2 smep bmi2
            erms invpcid rtm rdseed adx smap syscall nx rdtscp lm lahf-lm abm 3dnowprefetch
            xsaveopt xsavec xgetbv1 arat",
        versions: &[
            Version { text: "Intel Core Processor (Skylake)", note: "", alias: "",
                model: 94, stepping: 3, level: 0xd, xlevel: 0x80000008,
                changes: "" },
            Version { text: "Intel Core Processor (Skylake, IBRS)", note: "", alias: "Skylake-Client-IBRS",
                model: 94, stepping: 3, level: 0xd, xlevel: 0x80000008,
                changes: "+spec-ctrl" },
            Version { text: "Intel Core Processor (Skylake, IBRS, no TSX)", note: "", alias: "Skylake-Client-noTSX-IBRS",
                model: 94, stepping: 3, level: 0xd, xlevel: 0x80000008,
                changes: "+spec-ctrl -hle -rtm" },
            Version { text: "Intel Core Processor (Skylake, IBRS, no TSX)", note: "[IBRS, XSAVES, no TSX]", alias: "",
                model: 94, stepping: 3, level: 0xd, xlevel: 0x80000008,
                changes: "+spec-ctrl +xsaves -hle -rtm" },
        ],
    },
    Model {
        name: "Skylake-Server", vendor: "GenuineIntel", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt
            tsc-deadline aes xsave avx f16c rdrand hypervisor fsgsbase bmi1 hle avx2 smep bmi2
            erms invpcid rtm avx512f avx512dq rdseed adx smap clflushopt clwb avx512cd avx512bw
            avx512vl pku syscall nx pdpe1gb rdtscp lm lahf-lm abm 3dnowprefetch xsaveopt xsavec
            xgetbv1 arat",
        versions: &[
            Version { text: "Intel Xeon Processor (Skylake)", note: "", alias: "",
                model: 85, stepping: 4, level: 0xd, xlevel: 0x80000008,
                changes: "" },
            Version { text: "Intel Xeon Processor (Skylake, IBRS)", note: "", alias: "Skylake-Server-IBRS",
                model: 85, stepping: 4, level: 0xd, xlevel: 0x80000008,
                changes: "+spec-ctrl -clflushopt" },
            Version { text: "Intel Xeon Processor (Skylake, IBRS, no TSX)", note: "", alias: "Skylake-Server-noTSX-IBRS",
                model: 85, stepping: 4, level: 0xd, xlevel: 0x80000008,
                changes: "+spec-ctrl -hle -rtm -clflushopt" },
            Version { text: "Intel Xeon Processor (Skylake, IBRS, no TSX)", note: "[IBRS, EPT switching, no TSX]", alias: "",
                model: 85, stepping: 4, level: 0xd, xlevel: 0x80000008,
                changes: "+spec-ctrl -hle -rtm -clflushopt" },
            Version { text: "Intel Xeon Processor (Skylake, IBRS, no TSX)", note: "[IBRS, XSAVES, EPT switching, no TSX]", alias: "",
                model: 85, stepping: 4, level: 0xd, xlevel: 0x80000008,
                changes: "+spec-ctrl +xsaves -hle -rtm -clflushopt" },
        ],
    },
    Model {
        name: "Snowridge", vendor: "GenuineIntel", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni pclmulqdq monitor ssse3 cx16 sse4.1 sse4.2 x2apic movbe popcnt
            tsc-deadline aes xsave rdrand hypervisor fsgsbase smep erms mpx rdseed smap
            clflushopt clwb sha-ni umip gfni cldemote movdiri movdir64b spec-ctrl
            arch-capabilities core-capability ssbd syscall nx pdpe1gb rdtscp lm lahf-lm
            3dnowprefetch xsaveopt xsavec xgetbv1 arat split-lock-detect",
        versions: &[
            Version { text: "Intel Atom Processor (SnowRidge)", note: "", alias: "",
                model: 134, stepping: 1, level: 0x1b, xlevel: 0x80000008,
                changes: "" },
            Version { text: "Intel Atom Processor (Snowridge, no MPX)", note: "", alias: "",
                model: 134, stepping: 1, level: 0x1b, xlevel: 0x80000008,
                changes: "-mpx" },
            Version { text: "Intel Atom Processor (Snowridge, no MPX)", note: "[XSAVES, no MPX]", alias: "",
                model: 134, stepping: 1, level: 0x1b, xlevel: 0x80000008,
                changes: "+xsaves -mpx" },
            Version { text: "Intel Atom Processor (Snowridge, no MPX)", note: "[no split lock detect, no core-capability]", alias: "",
                model: 134, stepping: 1, level: 0x1b, xlevel: 0x80000008,
                changes: "+xsaves -mpx -core-capability -split-lock-detect" },
        ],
    },
    Model {
        name: "Westmere", vendor: "GenuineIntel", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni pclmulqdq ssse3 cx16 sse4.1 sse4.2 popcnt aes hypervisor syscall
            nx lm lahf-lm arat",
        versions: &[
            Version { text: "Westmere E56xx/L56xx/X56xx (Nehalem-C)", note: "", alias: "",
                model: 44, stepping: 1, level: 0xb, xlevel: 0x80000008,
                changes: "" },
            Version { text: "Westmere E56xx/L56xx/X56xx (IBRS update)", note: "", alias: "Westmere-IBRS",
                model: 44, stepping: 1, level: 0xb, xlevel: 0x80000008,
                changes: "+spec-ctrl" },
        ],
    },
    Model {
        name: "YongFeng", vendor: "CentaurHauls", family: 7,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush acpi
            mmx fxsr sse sse2 ss pni pclmulqdq monitor ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic
            movbe popcnt tsc-deadline aes xsave avx f16c rdrand hypervisor fsgsbase bmi1 avx2
            smep bmi2 invpcid rdseed adx smap sha-ni umip pku rdpid spec-ctrl arch-capabilities
            syscall nx pdpe1gb rdtscp lm lahf-lm abm 3dnowprefetch invtsc xstore xstore-en
            xcrypt xcrypt-en ace2 phe phe-en pmm pmm-en xsaveopt rdctl-no skip-l1dfl-vmentry
            ssb-no mds-no pschange-mc-no",
        versions: &[
            Version { text: "Zhaoxin YongFeng Processor", note: "", alias: "",
                model: 11, stepping: 3, level: 0x1f, xlevel: 0x80000008,
                changes: "" },
            Version { text: "Zhaoxin YongFeng Processor", note: "[with the correct model number]", alias: "",
                model: 91, stepping: 3, level: 0x1f, xlevel: 0x80000008,
                changes: "" },
        ],
    },
    Model {
        name: "athlon", vendor: "AuthenticAMD", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 mmx fxsr sse
            sse2 hypervisor mmxext 3dnowext 3dnow",
        versions: &[
            Version { text: "QEMU Virtual CPU version 2.5+", note: "", alias: "",
                model: 2, stepping: 3, level: 0x2, xlevel: 0x80000008,
                changes: "" },
        ],
    },
    Model {
        name: "core2duo", vendor: "GenuineIntel", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush acpi
            mmx fxsr sse sse2 ss pni monitor ssse3 cx16 hypervisor syscall nx lm lahf-lm",
        versions: &[
            Version { text: "Intel(R) Core(TM)2 Duo CPU     T7700  @ 2.40GHz", note: "", alias: "",
                model: 15, stepping: 11, level: 0xa, xlevel: 0x80000008,
                changes: "" },
        ],
    },
    Model {
        name: "coreduo", vendor: "GenuineIntel", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat clflush acpi mmx fxsr
            sse sse2 ss pni monitor hypervisor nx",
        versions: &[
            Version { text: "Genuine Intel(R) CPU           T2600  @ 2.16GHz", note: "", alias: "",
                model: 14, stepping: 8, level: 0xa, xlevel: 0x80000008,
                changes: "" },
        ],
    },
    Model {
        name: "kvm32", vendor: "GenuineIntel", family: 15,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni hypervisor",
        versions: &[
            Version { text: "Common 32-bit KVM processor", note: "", alias: "",
                model: 6, stepping: 1, level: 0x5, xlevel: 0x80000008,
                changes: "" },
        ],
    },
    Model {
        name: "kvm64", vendor: "GenuineIntel", family: 15,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni cx16 hypervisor syscall nx lm",
        versions: &[
            Version { text: "Common KVM processor", note: "", alias: "",
                model: 6, stepping: 1, level: 0xd, xlevel: 0x80000008,
                changes: "" },
        ],
    },
    Model {
        name: "n270", vendor: "GenuineIntel", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat clflush acpi mmx fxsr
            sse sse2 ss pni monitor ssse3 movbe hypervisor nx lahf-lm",
        versions: &[
            Version { text: "Intel(R) Atom(TM) CPU N270   @ 1.60GHz", note: "", alias: "",
                model: 28, stepping: 2, level: 0xa, xlevel: 0x80000008,
                changes: "" },
        ],
    },
    Model {
        name: "pentium", vendor: "GenuineIntel", family: 5,
        features: "
            fpu de pse tsc msr mce cx8 apic mmx hypervisor",
        versions: &[
            Version { text: "", note: "", alias: "",
                model: 4, stepping: 3, level: 0x1, xlevel: 0x0,
                changes: "" },
        ],
    },
    Model {
        name: "pentium2", vendor: "GenuineIntel", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 mmx fxsr
            hypervisor",
        versions: &[
            Version { text: "", note: "", alias: "",
                model: 5, stepping: 2, level: 0x2, xlevel: 0x0,
                changes: "" },
        ],
    },
    Model {
        name: "pentium3", vendor: "GenuineIntel", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 mmx fxsr sse
            hypervisor",
        versions: &[
            Version { text: "", note: "", alias: "",
                model: 7, stepping: 3, level: 0x3, xlevel: 0x0,
                changes: "" },
        ],
    },
    Model {
        name: "phenom", vendor: "AuthenticAMD", family: 16,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni monitor cx16 popcnt hypervisor syscall nx mmxext fxsr-opt pdpe1gb
            rdtscp lm 3dnowext 3dnow lahf-lm svm abm sse4a npt",
        versions: &[
            Version { text: "AMD Phenom(tm) 9550 Quad-Core Processor", note: "", alias: "",
                model: 2, stepping: 3, level: 0x5, xlevel: 0x8000001a,
                changes: "" },
        ],
    },
    Model {
        name: "qemu32", vendor: "GenuineIntel", family: 6,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep pge cmov pat mmx fxsr sse sse2 pni
            hypervisor",
        versions: &[
            Version { text: "QEMU Virtual CPU version 2.5+", note: "", alias: "",
                model: 6, stepping: 3, level: 0x4, xlevel: 0x80000004,
                changes: "" },
        ],
    },
    Model {
        name: "qemu64", vendor: "AuthenticAMD", family: 15,
        features: "
            fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx
            fxsr sse sse2 pni cx16 hypervisor syscall nx lm lahf-lm svm",
        versions: &[
            Version { text: "QEMU Virtual CPU version 2.5+", note: "", alias: "",
                model: 107, stepping: 1, level: 0xd, xlevel: 0x8000000a,
                changes: "" },
        ],
    },
];
