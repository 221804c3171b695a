/* The smallest program worth building on a farm. */
#include <stdio.h>

int main(void)
{
	puts("Hello from a package that Farmbell built.");
	return 0;
}
