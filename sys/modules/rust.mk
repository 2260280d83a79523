# Builds the Rust half of a kernel module as one object, ${RUST_OBJ}, with rustc alone: no
# cargo, no network. Include it ahead of <bsd.kmod.mk>.
#
# +++ variables +++
#
# RUST_CRATE	The crate that becomes the object: toehold_kmod or t5sim_kmod.
#
# RUSTC		The compiler, 1.88 or newer. [rustc]
#
# RUST_SRC	The "library" folder of the source of that very version: core is compiled
#		with the kernel's flags, as no prebuilt one is. [that of the compiler's sysroot]
#
# TOEHOLD	The top of toehold's source tree. [two folders up]
#
# Declarations of the C half come from bindings/, which bindgen made from the headers in
# shim/. They are kept in the tree because bindgen wants libclang, which FreeBSD's base does
# not have, and because the headers use nothing that differs between releases; "make check"
# sees to it that they are current, and so does the rule below. For the source of the
# registry's crates that get into the modules see crates.mk.

.MAIN: all

RUST_MK_DIR:=	${.PARSEDIR:tA}
TOEHOLD?=	${RUST_MK_DIR:H:H}
.include "crates.mk"
RUSTC?=		rustc
.if !defined(RUST_SRC)
RUST_SYSROOT!=	${RUSTC} --print sysroot 2>/dev/null || echo /nonexistent
RUST_SRC=	${RUST_SYSROOT}/lib/rustlib/src/rust/library
.endif
RUST_OBJ=	${RUST_CRATE}_rust.o

RUST_TARGET=	x86_64-unknown-none

# What the loader and the kernel's way of compiling ask for; rust/xtask uses the same.
RUST_FLAGS=	--target ${RUST_TARGET} -Cpanic=abort -Copt-level=3 \
		-Ccodegen-units=1 -Coverflow-checks=on -Cdebuginfo=0 \
		-Crelocation-model=static -Ccode-model=kernel \
		-Cno-redzone=yes -Crelro-level=off \
		-Cforce-frame-pointers=yes -Cforce-unwind-tables=no \
		-Csymbol-mangling-version=v0 -Cembed-bitcode=yes \
		--remap-path-prefix=${TOEHOLD}=toehold \
		--remap-path-prefix=${CRATES}=crates \
		--remap-path-prefix=${RUST_SRC:H}=rust \
		${RUSTFLAGS_EXTRA}

RUST_LIBRARY=	env RUSTC_BOOTSTRAP=1 ${RUSTC} --edition 2024 ${RUST_FLAGS} \
		--crate-type rlib --cap-lints allow -Zforce-unstable-if-unmarked
RUST_OWN=	${RUSTC} ${RUST_FLAGS}

# The compiler wants a crate of this name beside core; what the compiler calls by itself is
# the kernel's (memcpy), or shows up undefined when the module is linked.
RUST_STD=	--extern core=libcore.rlib \
		--extern compiler_builtins=libcompiler_builtins.rlib
RUST_STD_LIBS=	libcore.rlib libcompiler_builtins.rlib

# A crate: its folder, the other crates it uses, how it is compiled if not as ours are.
RUST_REGISTRY=		bitflags spin static_assertions
.for _c in ${RUST_REGISTRY}
RUST_DIR.${_c}=		${CRATES}/${CRATES_ALL:M${_c}-*}
.endfor
RUST_AS.bitflags=	--edition 2021 --cap-lints allow
RUST_AS.spin=		--edition 2015 --cap-lints allow --cfg 'feature="once"'
RUST_AS.static_assertions=	--edition 2018 --cap-lints allow
RUST_DIR.wire=		${TOEHOLD}/rust/wire
RUST_USES.wire=		static_assertions
RUST_DIR.toehold_core=	${TOEHOLD}/rust/core
RUST_USES.toehold_core=	wire bitflags static_assertions
RUST_DIR.toehold_sys=	${TOEHOLD}/sys
RUST_DIR.kpi=		${TOEHOLD}/rust/kpi
RUST_USES.kpi=		toehold_sys static_assertions
RUST_DIR.toehold_kmod=	${TOEHOLD}/rust/kmod
RUST_USES.toehold_kmod=	kpi toehold_core wire spin static_assertions
RUST_DIR.t5sim=		${TOEHOLD}/rust/t5sim
RUST_USES.t5sim=	wire
RUST_DIR.t5sim_kmod=	${TOEHOLD}/rust/t5sim-kmod
RUST_USES.t5sim_kmod=	t5sim wire toehold_sys

RUST_CRATES.toehold_kmod=	bitflags spin static_assertions wire toehold_core toehold_sys kpi
RUST_CRATES.t5sim_kmod=		static_assertions wire t5sim toehold_sys

.if empty(RUST_CRATE) || empty(RUST_CRATES.${RUST_CRATE})
.error "RUST_CRATE must be toehold_kmod or t5sim_kmod, not '${RUST_CRATE}'"
.endif
.if ${RUST_CRATE} == "t5sim_kmod"
RUST_STD+=	--extern alloc=liballoc.rlib
RUST_STD_LIBS+=	liballoc.rlib
.endif

.if !make(clean) && !make(cleandir) && !make(obj) && !make(unload)
RUST_VERSION!=	${RUSTC} --version 2>/dev/null || true
.if empty(RUST_VERSION)
.error "toehold: ${RUSTC} does not run; install Rust (pkg install rust) or set RUSTC"
.endif
.if ${RUST_VERSION:[2]:C/^1\.([0-9]+).*/\1/} < 88
.error "toehold: ${RUST_VERSION} is too old, 1.88 or newer is needed"
.endif
.if !exists(${RUST_SRC}/core/src/lib.rs)
.error "toehold: no source of core in ${RUST_SRC}; set RUST_SRC to the library folder of the source of ${RUST_VERSION}"
.endif
.for _c in ${RUST_REGISTRY}
.if !exists(${RUST_DIR.${_c}}/src/lib.rs)
.error "toehold: no source of ${RUST_DIR.${_c}:T} in ${CRATES}; run make -C ${RUST_MK_DIR} fetch CRATES=${CRATES}, or set CRATES to the folder that has it"
.endif
.endfor
.endif

libcore.rlib: ${RUST_SRC}/core/src/lib.rs
	${RUST_LIBRARY} --crate-name core -o ${.TARGET} ${RUST_SRC}/core/src/lib.rs

libcompiler_builtins.rlib: libcore.rlib ${RUST_MK_DIR}/compiler_builtins.rs
	${RUST_LIBRARY} --crate-name compiler_builtins -Cembed-bitcode=no \
	    --extern core=libcore.rlib -o ${.TARGET} ${.ALLSRC:M*.rs}

liballoc.rlib: libcore.rlib libcompiler_builtins.rlib
	${RUST_LIBRARY} --crate-name alloc --extern core=libcore.rlib \
	    --extern compiler_builtins=libcompiler_builtins.rlib \
	    -o ${.TARGET} ${RUST_SRC}/alloc/src/lib.rs

# Bindings of another state of the headers would compile, and be wrong.
.for _h in toehold.h t5sim/t5sim.h
RUST_BINDINGS+=	bindings-${_h:T:R}.ok
bindings-${_h:T:R}.ok: ${TOEHOLD}/shim/${_h} ${TOEHOLD}/sys/modules/bindings/${_h:T:R}.rs
	@if ! grep -q "cksum `cksum < ${TOEHOLD}/shim/${_h}`$$" \
	    ${TOEHOLD}/sys/modules/bindings/${_h:T:R}.rs; then \
		echo "toehold: sys/modules/bindings/${_h:T:R}.rs is not of this shim/${_h};" \
		    "run make generated on a machine with bindgen" >&2; \
		exit 1; \
	fi
	@touch ${.TARGET}
.endfor
RUST_NEEDS.toehold_sys=	${RUST_BINDINGS}

.for _c in ${RUST_CRATES.${RUST_CRATE}} ${RUST_CRATE}
RUST_FILES.${_c}!=	find ${RUST_DIR.${_c}}/src -name '*.rs' 2>/dev/null || true
RUST_EXTERN.${_c}=	${RUST_USES.${_c}:@_u@--extern ${_u}=lib${_u}.rlib@}
.endfor

.for _c in ${RUST_CRATES.${RUST_CRATE}}
lib${_c}.rlib: ${RUST_STD_LIBS} ${RUST_USES.${_c}:@_u@lib${_u}.rlib@} ${RUST_NEEDS.${_c}} ${RUST_FILES.${_c}}
	OUT_DIR=${TOEHOLD}/sys/modules/bindings \
	    ${RUST_OWN} ${RUST_AS.${_c}:U--edition 2024 --cap-lints warn} \
	    --crate-name ${_c} --crate-type rlib ${RUST_STD} \
	    ${RUST_EXTERN.${_c}} -L dependency=. -o ${.TARGET} ${RUST_DIR.${_c}}/src/lib.rs
.endfor

# All crates and what they use of core, in one object.
${RUST_OBJ}: ${RUST_STD_LIBS} ${RUST_CRATES.${RUST_CRATE}:@_c@lib${_c}.rlib@} ${RUST_FILES.${RUST_CRATE}}
	${RUST_OWN} --edition 2024 --cap-lints warn --crate-name ${RUST_CRATE} \
	    --crate-type staticlib -Clto=fat --emit=obj=${.TARGET},link=lib${RUST_CRATE}.a \
	    ${RUST_STD} ${RUST_EXTERN.${RUST_CRATE}} -L dependency=. ${RUST_DIR.${RUST_CRATE}}/src/lib.rs

OBJS+=		${RUST_OBJ}
CLEANFILES+=	${RUST_OBJ} lib${RUST_CRATE}.a ${RUST_STD_LIBS} ${RUST_BINDINGS} \
		${RUST_CRATES.${RUST_CRATE}:@_c@lib${_c}.rlib@}
