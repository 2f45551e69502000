"""The command trytond-bus: the bus server, and the commands around it."""
import logging
import os
import sys

from . import sources

logger = logging.getLogger('trytond.bus')


def main(args=None):
    "Run the command in the arguments, and exit with its status"
    sys.exit(_run(sys.argv[1:] if args is None else args))


def _run(args):
    program = 'trytond-bus'
    if sys.stdout:
        # As for stderr, a character that the terminal lacks is no error.
        sys.stdout.reconfigure(errors='backslashreplace')
    try:
        sources.check_environment()
        # This imports trytond, which reads the environment and TRYTOND_CONFIG.
        from . import commands
        options = commands.parse(args)
        program = options.parser.prog
        return commands.run(options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has closed the output. Without this the interpreter would
        # fail to flush it at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        logger.debug("the command has failed", exc_info=True)
        for line in sources.reasons(error):
            print("%s: error: %s" % (program, line), file=sys.stderr)
        return 1


if __name__ == '__main__':
    main()
