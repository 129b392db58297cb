"""Attacks that want something called, imported or changed.

Each is a piece of a pickle that leaves one value.  Where it succeeds it makes the file `canary` in the current
folder, by `touch canary` or by importing `canary_module`, which the test puts there.
"""

import os
import pickle

from tests.hostile.opcodes import EMPTY_ARRAY, dtype, integer, name, raw, text

TOUCH = text("touch canary") + b"\x85R"
SYSTEM = name("os", "system") + TOUCH
_NESTED = pickle.dumps(os.getcwd, protocol=2)
_IMPORT = text("import canary_module") + b"\x85R"
_DYNAMIC_IMPORT = text("__import__('canary_module')") + b"\x85R"
_OS = name("builtins", "__import__") + text("os") + b"\x85R"
_OPEN = text("canary") + text("w") + b"\x86R"

# REDUCE: a function by name, called.
FUNCTIONS = {
    "os.system": SYSTEM,
    "posix.system": name("posix", "system") + TOUCH,
    "os.execvp": name("os", "execvp") + text("touch") + b"](" + text("touch") + text("canary") + b"e\x86R",
    "os._exit": name("os", "_exit") + b"K\x00\x85R",
    "subprocess": name("subprocess", "check_output") + b"](" + text("touch") + text("canary") + b"e\x85R",
    "builtins.exec": name("builtins", "exec") + _IMPORT,
    "builtins.__import__": name("builtins", "__import__") + text("canary_module") + b"\x85R",
    "builtins.range as list": name("builtins", "list") + name("builtins", "range") + integer(2**40) + b"\x85R\x85R",
    "io.open": name("io", "open") + _OPEN,
    "shutil.rmtree": name("shutil", "rmtree") + text("data") + b"\x85R",
    "importlib": name("importlib", "import_module") + text("canary_module") + b"\x85R",
    "timeit": name("timeit", "timeit") + _IMPORT,
    "ctypes": name("ctypes", "CDLL") + text("./canary.so") + b"\x85R",
    "types.FunctionType": name("types", "FunctionType") + b"N}\x86R",
    "py2 __builtin__": name("__builtin__", "eval") + _DYNAMIC_IMPORT,
    "py2 copy_reg": name("copy_reg", "_reconstructor") + name("subprocess", "Popen") + name("os", "path") + b"N\x87R",
    "copyreg.__newobj__": name("copyreg", "__newobj__") + name("subprocess", "Popen") + text("touch canary") + b"\x86R",
    "import alone": name("canary_module", "x"),
    "getattr": name("builtins", "getattr") + _OS + text("system") + b"\x86R" + TOUCH,
    "operator": name("operator", "attrgetter") + text("system") + b"\x85R" + _OS + b"\x85R" + TOUCH,
    "operator.methodcaller": (
        name("operator", "methodcaller") + text("system") + text("touch canary") + b"\x86R" + _OS + b"\x85R"
    ),
    "functools": name("functools", "partial") + name("os", "system") + text("touch canary") + b"\x86R)R",
    "functools.reduce": (
        name("functools", "reduce") + name("builtins", "getattr") + _OS + text("system") + b"\x86\x86R" + TOUCH
    ),
    "list of map": (
        name("builtins", "list")
        + name("builtins", "map")
        + name("os", "system")
        + b"]("
        + text("touch canary")
        + b"e\x86R\x85R"
    ),
    "nested loads": name("pickle", "loads") + raw(b"\x80\x02" + SYSTEM + b".") + b"\x85R",
    "torch.load": name("torch", "load") + text("canary") + b"\x85R",
    "our own reader": name("pipeline.store.pickles", "loads") + raw(_NESTED) + b"\x85R",
    "numpy.load": name("numpy", "load") + text("canary.npy") + b"NN\x87R",
    "numpy.memmap": name("numpy", "memmap") + b"(" + text("canary") + text("u1") + text("w+") + b"K\x00K\x01tR",
    "numpy.ones": name("numpy", "ones") + integer(2**40) + b"\x85R",
    "numpy scalar": name("numpy.core.multiarray", "scalar") + dtype("i8", "<") + raw(b"\0" * 8) + b"\x86R",
    "ndarray called": name("numpy", "ndarray") + b"K\x03\x85\x85R",
    "ndarray of a terabyte": name("numpy", "ndarray") + integer(2**40) + b"\x85\x85R",
    "call of a text": text("os") + b")R",
    "call without a tuple": name("numpy", "dtype") + b"]R",
    "encode with another codec": name("_codecs", "encode") + text("abc") + text("rot13") + b"\x86R",
    "encode without a codec": name("_codecs", "encode") + text("abc") + b"\x85R",
    "encode of no latin1": name("_codecs", "encode") + text("\u0100") + text("latin1") + b"\x86R",
    "encode of a number": name("_codecs", "encode") + b"K\x01" + text("latin1") + b"\x86R",
    "codecs.decode": name("codecs", "decode") + raw(b"x\x9c") + text("zlib") + b"\x86R",
}

# The other ways to a function or a class, and to changing one.
WAYS = {
    "INST": b"(" + text("touch canary") + b"ios\nsystem\n",
    "OBJ": b"(" + name("os", "system") + text("touch canary") + b"o",
    "NEWOBJ": name("subprocess", "Popen") + text("touch canary") + b"\x85\x81",
    "NEWOBJ_EX": name("subprocess", "Popen") + text("touch canary") + b"\x85}\x92",
    "EXT1": b"\x82\x01",
    "BINPERSID": text("canary") + b"Q",
    "NEXT_BUFFER": b"\x97",
    "READONLY_BUFFER": raw(b"abc") + b"\x98",
    "STACK_GLOBAL": text("os") + text("system") + b"\x93" + TOUCH,
    "STACK_GLOBAL by memo": text("os") + b"\x940" + text("system") + b"\x940h\x00h\x01\x93" + TOUCH,
    "STACK_GLOBAL dotted": text("numpy") + text("dtype.__class__.mro") + b"\x93)R",
    "STACK_GLOBAL of bytes": b"U\x02osU\x06system\x93" + TOUCH,
    "STACK_GLOBAL of numbers": b"K\x01K\x02\x93",
    "STACK_GLOBAL of nothing": b"\x93",
    "STACK_GLOBAL with an escape": text("\x1b[31m\n") + text("\x07") + b"\x93",
    "GLOBAL dotted": name("numpy", "ndarray.__reduce__"),
    "GLOBAL without end": b"cnumpy\ndtype",
    "GLOBAL endless": b"c" + b"a" * 1_000_000,
    "GLOBAL not ASCII": b"c\xff\xfe\x1b[31m\nb\r\n",
    "GLOBAL with a space": name("numpy ", "dtype"),
    "_reconstruct of another class": (
        name("numpy.core.multiarray", "_reconstruct") + name("numpy", "memmap") + b"K\x00\x85C\x01b\x87R"
    ),
    "_reconstruct with a shape": (
        name("numpy.core.multiarray", "_reconstruct") + name("numpy", "ndarray") + b"J\xff\xff\xff\x7f\x85C\x01b\x87R"
    ),
    "_reconstruct with a list": (
        name("numpy.core.multiarray", "_reconstruct")
        + name("numpy", "ndarray")
        + b"]K\x00aC\x01b\x87R"
        + b"(K\x01K\x03\x85"
        + dtype()
        + b"\x89"
        + raw(b"abc")
        + b"tb"
    ),
    "_reconstruct of objects": (
        name("numpy.core.multiarray", "_reconstruct") + name("numpy", "ndarray") + b"K\x00\x85C\x01O\x87R"
    ),
    "a global as the value": name("numpy", "ndarray"),
    "a dtype as the value": dtype(),
    "BUILD on a dict": b"}}b",
    "BUILD on a function": name("_codecs", "encode") + b"}" + text("__doc__") + text("x") + b"sb",
    "BUILD on a class": name("numpy", "ndarray") + b"}" + text("x") + b"K\x01sb",
    "BUILD with a dict": EMPTY_ARRAY + b"}b",
    "BUILD without a state": EMPTY_ARRAY + b"b",
}

CALLS = FUNCTIONS | WAYS
