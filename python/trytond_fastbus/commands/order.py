"""The position of the command in the arguments."""


def in_order(args, commands):
    """Return the arguments with the command first, and 'serve' if there is no
    command.

    commands are the parsers by name. A command is an argument with its name
    that is not the value of an option. If an option takes several values, such
    as -d, only the first value may look like a command. A command may be
    written as an option (--check), because trytond's commands have only
    options.
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
        # The parser lists the commands.
        return args
    return ['serve', *args]


def _takes_value(arg, values):
    if arg.startswith('--'):
        # argparse accepts an abbreviated option.
        return any(name.startswith(arg) for name in values)
    return arg in values
