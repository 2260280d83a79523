# Source of the registry's crates that get into the modules. distinfo names each archive,
# its SHA-256 and its size, as in ports; "make generated" keeps it in step with Cargo.lock.
#
# CRATES	Folder that holds them unpacked, each in <name>-<version>: made by
#		"make -C sys/modules fetch", or cargo's own (~/.cargo/registry/src/<index>).
#		[crates, beside the objects]
#
# CRATES_URL	Where "make fetch" takes <name>/<name>-<version>.crate from.
#		[https://static.crates.io/crates]

CRATES_MK_DIR:=	${.PARSEDIR:tA}
CRATES_URL?=	https://static.crates.io/crates
.if ${.CURDIR:tA} == ${CRATES_MK_DIR}
CRATES?=	${.OBJDIR}/crates
.else
CRATES?=	${.OBJDIR:H}/crates
.endif
.if empty(CRATES:M/*)
.error "toehold: CRATES=${CRATES} is not a path from the root"
.endif

# Each as <name>-<version>.
CRATES_ALL!=	sed -n 's/^SHA256 (\(.*\)\.crate) = .*/\1/p' ${CRATES_MK_DIR}/distinfo
