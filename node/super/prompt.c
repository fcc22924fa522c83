/* Reading from people. */
#include "node/super/prompt.h"

#include <stdio.h>
#include <sys/random.h>
#include <termios.h>
#include <unistd.h>

#include "pemberley/must.h"

bool prompt_possible(void) { return isatty(STDIN_FILENO) && isatty(STDERR_FILENO); }

/* Byte by byte: what stdio read ahead would stay in its buffer, also a password. */
bool prompt_line(char out[PROMPT_MAX])
{
    size_t n = 0;
    for (ssize_t got; (got = read(STDIN_FILENO, out + n, 1)) == 1 && out[n] != '\n';)
        if (++n == PROMPT_MAX - 1)
            return false;
    out[n] = 0;
    if (n && out[n - 1] == '\r')
        out[n - 1] = 0;
    return n > 0;
}

bool prompt_secret(const char *question, char out[PROMPT_MAX])
{
    struct termios shown, hidden;
    if (tcgetattr(STDIN_FILENO, &shown) < 0)
        return false;
    hidden = shown;
    hidden.c_lflag &= ~(tcflag_t)ECHO;
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &hidden); /* before: who answers at once loses nothing */
    fputs(question, stderr);
    bool good = prompt_line(out);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &shown);
    fputc('\n', stderr);
    return good;
}

void prompt_generate(char out[PROMPT_MAX])
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    size_t n = 0;
    while (n < 20) {
        unsigned char byte;
        must(getrandom(&byte, 1, 0) == 1);
        if (byte < 4 * (sizeof letters - 1)) /* so that each letter is as likely */
            out[n++] = letters[byte % (sizeof letters - 1)];
    }
    out[n] = 0;
}
