"""Where a loss stands in the model that it is part of."""

from __future__ import annotations

import weakref

import torch
import torch.nn as nn
from mmengine.model import is_model_wrapper
from torch.nn.modules.module import register_module_module_registration_hook

__all__ = ['PlacedModule', 'distinct_name', 'path_in_model', 'root_of']

# Owner of every module and its name there. All of them, since heads are put into lists
# that are part of the model already.
_owners: weakref.WeakKeyDictionary[nn.Module, tuple[weakref.ref[nn.Module], str]] = (
    weakref.WeakKeyDictionary()
)


class PlacedModule(nn.Module):
    """A module that is told where it is put.

    mmdet's heads build their losses from a config that does not name the head. But
    PyTorch has a hook on the registration of modules, which sees ``head.loss_cls =
    loss`` while the model is built.
    """

    def placed(self, owner: nn.Module, name: str) -> None:
        """Take notice of ``owner.name = self``; what it raises stops the building.

        Args:
            owner: The module that the attribute belongs to. While it builds its parts
                in ``__init__`` it may not be finished.
            name: The attribute.
        """


def root_of(module: nn.Module) -> nn.Module:
    """The outermost module that ``module`` is part of; itself if of none.

    Wrappers of a model, such as MMEngine's for distributed training or what
    ``torch.compile`` returns, do not count. A copy of a model was never put together,
    so its parts are part of none.
    """
    return _climb(module)[0]


def path_in_model(module: nn.Module) -> str:
    """Path of a module from :func:`root_of` it, such as ``'bbox_head.loss_cls'``."""
    return '.'.join(_climb(module)[1])


# Asked once; a compiled loss can not look at what it is part of.
@torch.compiler.disable
def distinct_name(module: nn.Module, kind: type, name: str, usual: str) -> str:
    """A name that no other module of the same kind has in the same model.

    Args:
        module: The module.
        kind: Class of those that need different names.
        name: What it is called where it is alone.
        usual: Attribute that most are; it is left out of the path.

    Returns:
        ``name``, and with its path behind it if there are several, such as
        ``daal_rpn_head``.
    """
    if sum(isinstance(other, kind) for other in root_of(module).modules()) < 2:
        return name
    return f'{name}_{path_in_model(module).removesuffix(usual).rstrip("._")}'


def _climb(module: nn.Module) -> tuple[nn.Module, list[str]]:
    names: list[str] = []
    while module in _owners:
        reference, name = _owners[module]
        owner = reference()
        if owner is None or is_model_wrapper(owner):
            break
        module = owner
        names.insert(0, name)
    return module, names


def _note(owner: nn.Module, name: str, module: nn.Module | None) -> None:
    # What torch.compile returns holds the module under this name: it owns nothing, and
    # stands for the module where it is put itself.
    if name == '_orig_mod':
        return
    module = getattr(module, '_orig_mod', module)
    if isinstance(module, PlacedModule):
        module.placed(owner, name)
    if module is not None:
        _owners[module] = weakref.ref(owner), name


register_module_module_registration_hook(_note)
