//! Gates on the machine code, read from a disassembly: no floating point or vector
//! registers (the kernel does not save them), no big stack frame (a kernel stack has four pages).

/// Largest frame in bytes.
pub const FRAME_LIMIT: u64 = 2048;

/// Everything wrong with the code in `listing`, which is what `llvm-objdump` prints.
pub fn check(listing: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut function = "?";
    let mut vector_in = "";
    for line in listing.lines() {
        if let Some(name) = label(line) {
            function = name;
            continue;
        }
        let Some(instruction) = instruction(line) else {
            continue;
        };
        if function != vector_in && uses_vector(instruction) {
            vector_in = function;
            faults.push(format!("vector: {function} uses `{instruction}`"));
        }
        if lowers_by_register(instruction) {
            faults.push(format!("stack: {function} has a frame of variable size"));
        }
        if let Some(size) = frame(instruction).filter(|size| *size > FRAME_LIMIT) {
            faults.push(format!(
                "stack: {function} has a frame of {size} bytes, over {FRAME_LIMIT}"
            ));
        }
    }
    faults
}

/// The function a line such as `0000000000000000 <name>:` begins.
fn label(line: &str) -> Option<&str> {
    let (address, rest) = line.split_once(" <")?;
    let hex = !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit());
    if hex { rest.strip_suffix(">:") } else { None }
}

/// The instruction of a line such as `      10: \tsubq\t$0x18, %rsp`, without the comment.
fn instruction(line: &str) -> Option<&str> {
    let (address, rest) = line.split_once(':')?;
    let address = address.trim_start();
    if address.is_empty() || !address.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let text = rest.split_once(" <").map_or(rest, |(text, _)| text);
    Some(text.split('#').next().unwrap_or(text).trim())
}

fn uses_vector(instruction: &str) -> bool {
    // Every mnemonic that begins with f is of the x87 or saves its state.
    if instruction.starts_with('f') || instruction == "emms" || instruction.contains("mxcsr") {
        return true;
    }
    instruction.split('%').skip(1).any(|operand| {
        let name: &str = operand
            .split(|c: char| !c.is_ascii_alphanumeric())
            .next()
            .unwrap_or_default();
        let numbered = |prefix: &str| {
            name.strip_prefix(prefix)
                .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        };
        name == "st" || ["xmm", "ymm", "zmm", "mm", "k"].iter().any(|p| numbered(p))
    })
}

/// Bytes by which an instruction lowers the stack pointer by a constant.
fn frame(instruction: &str) -> Option<u64> {
    let (mnemonic, operands) = instruction.split_once(char::is_whitespace)?;
    let operands = operands.trim();
    match mnemonic {
        "sub" | "subq" => number(
            operands
                .strip_suffix("%rsp")?
                .trim()
                .strip_suffix(',')?
                .strip_prefix('$')?,
        ),
        "add" | "addq" => number(
            operands
                .strip_suffix("%rsp")?
                .trim()
                .strip_suffix(',')?
                .strip_prefix("$-")?,
        ),
        // How an inline stack probe and some prologues write it.
        "lea" | "leaq" => {
            let (displacement, _) = operands.strip_prefix('-')?.split_once("(%rsp)")?;
            number(displacement)
        }
        _ => None,
    }
}

/// Whether the stack pointer is set from a register other than the frame pointer, which is
/// how a frame of variable size looks.
fn lowers_by_register(instruction: &str) -> bool {
    let Some((mnemonic, operands)) = instruction.split_once(char::is_whitespace) else {
        return false;
    };
    let Some(from) = operands.trim().strip_suffix(", %rsp") else {
        return false;
    };
    match mnemonic {
        "sub" | "subq" => from.starts_with('%'),
        "mov" | "movq" => from.starts_with('%') && from != "%rbp",
        _ => false,
    }
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}
