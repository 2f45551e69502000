"""The place of the command among the arguments."""


def in_order(args, commands):
    """Return the arguments with the command first, and 'serve' where there is
    none.

    commands are the parsers by name. A command is a word of its name that is
    not the value of an option; of one that takes several values, such as -d,
    only the first may look like a command. As trytond's commands know nothing
    but options, a command may be written as one (--check).
    """
    values = {
        name for parser in commands.values() for action in parser._actions
        if action.nargs != 0 for name in action.option_strings}
    for place, arg in enumerate(args):
        is_value = place and _takes_value(args[place - 1], values)
        if arg == '--':
            break
        name = arg.removeprefix('--')
        if name in commands and not is_value:
            return [name, *args[:place], *args[place + 1:]]
    if args and (not args[0].startswith('-') or args[0] in {'-h', '--help'}):
        # The parser tells the commands.
        return args
    return ['serve', *args]


def _takes_value(arg, values):
    if arg.startswith('--'):
        # argparse takes the beginning of an option for it.
        return any(name.startswith(arg) for name in values)
    return arg in values
