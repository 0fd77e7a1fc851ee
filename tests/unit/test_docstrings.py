"""Every public method has a docstring, or takes that of the method that it overrides or of the protocol that it plays."""

import importlib
import inspect
import pkgutil

import galbatch


def package_modules():
    found = pkgutil.walk_packages(galbatch.__path__, "galbatch.")
    return [importlib.import_module(module.name) for module in found if not module.name.endswith("__main__")]


def function_of(member):
    """The function behind a method, class method or property; None for anything else."""
    member = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
    return member if inspect.isfunction(member) else None


def room_of(kind):
    return kind.__module__.split(".")[1]


def undocumented(kinds):
    """Public methods of public classes without a docstring of their own, of a base class or of a protocol of their room."""
    documented = {
        (room_of(kind), name)
        for kind in kinds
        if getattr(kind, "_is_protocol", False) or inspect.isabstract(kind)
        for name, member in vars(kind).items()
        if (function := function_of(member)) is not None and function.__doc__
    }
    return [
        f"{kind.__module__}.{kind.__qualname__}.{name}"
        for kind in kinds
        if not kind.__name__.startswith("_")
        for name, member in vars(kind).items()
        if not name.startswith("_")
        and (function := function_of(member)) is not None
        and function.__module__ == kind.__module__
        and not function.__doc__
        and not any(name in vars(base) for base in kind.__mro__[1:])
        and (room_of(kind), name) not in documented
    ]


def classes_of(modules):
    found = {kind for module in modules for kind in vars(module).values() if inspect.isclass(kind)}
    own = [kind for kind in found if kind.__module__.startswith("galbatch.")]
    return sorted(own, key=lambda kind: (kind.__module__, kind.__qualname__))


def test_public_methods_are_documented_where_they_are_defined_first():
    kinds = classes_of(package_modules())
    assert len(kinds) > 100
    assert undocumented(kinds) == []


def test_a_method_without_a_docstring_is_noticed():
    class Silent:
        def method(self):
            return 0

    Silent.__module__ = Silent.method.__module__ = "galbatch.made.up"
    assert [name.rpartition(".")[2] for name in undocumented([Silent])] == ["method"]
